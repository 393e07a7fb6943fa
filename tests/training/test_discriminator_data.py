"""The discriminator's data: which rows are on which side, and what its fakes consist of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from refusal import refusal
from small_discriminator import PARAMS, PROCESS, numbered

from advloop.data.classes import Classes
from advloop.data.shares import VAL_SHARE
from advloop.params.training import MIN_SAMPLES
from advloop.training.discriminator_data import (
    KEPT,
    DiscData,
    Fakes,
    Reals,
    make_sides,
    mix_fakes,
    pair_rows,
    renoise,
    replay_labels,
    update_replay,
)

SPLITS = (["train"] * 4 + ["val"]) * 20  # 80 rows of train and 20 of val, mixed
CPU = torch.device("cpu")


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fractions(predicted: float = 0.0, replay: float = 0.0):
    return PARAMS.model_copy(update={"predicted_fraction": predicted, "replay_fraction": replay})


# --- the split ---


def test_reals_keep_their_split_so_that_no_group_is_on_both_sides():
    splits = [*SPLITS, *["test"] * 30]
    pairs = pair_rows(splits, 100, seed=0, iteration=0)
    for side, (reals, _) in pairs.items():
        assert {splits[row] for row in reals.tolist()} == {side}


@pytest.mark.parametrize("num_fake", [20, 25, 60, 100, 3000])
def test_sides_are_balanced_and_four_to_one_and_use_no_row_twice(num_fake):
    pairs = pair_rows(SPLITS, num_fake, seed=0, iteration=0)
    smaller = min(num_fake, len(SPLITS))
    counts = {side: len(reals) for side, (reals, _) in pairs.items()}
    assert counts == {side: len(fakes) for side, (_, fakes) in pairs.items()}
    assert sum(counts.values()) == smaller
    assert counts["val"] == pytest.approx(0.2 * smaller, abs=1)
    for kind, total in ((0, len(SPLITS)), (1, num_fake)):
        rows = torch.cat([pairs["train"][kind], pairs["val"][kind]]).tolist()
        assert len(set(rows)) == len(rows)
        assert set(rows) <= set(range(total))


def test_rows_are_chosen_at_random_by_seed_and_iteration():
    # of 1,000 fakes 80 train: uniform, so the mean has standard error 288.7 / sqrt(80) = 32
    fakes = pair_rows(SPLITS, 1000, seed=0, iteration=0)["train"][1].double()
    assert abs(float(fakes.mean()) - 499.5) < 4 * 32
    reals = pair_rows(SPLITS, 20, seed=0, iteration=0)["train"][0]
    assert int(reals.max()) > 60  # chance of missing the upper 40 %: below 0.6 ** 16 = 3e-4

    def flat(seed: int, iteration: int) -> list[int]:
        pairs = pair_rows(SPLITS, 100, seed, iteration)
        return torch.cat([*pairs["train"], *pairs["val"]]).tolist()

    assert flat(0, 0) == flat(0, 0)
    assert flat(0, 0) != flat(0, 1)
    assert flat(0, 0) != flat(1, 0)
    for rows in pair_rows(SPLITS, 100, 0, 0)["val"]:
        assert not torch.equal(rows, rows.sort().values)


@pytest.mark.parametrize(
    ("splits", "num_fake", "empty"),
    [
        (["train"] * 50, 50, "val"),
        (["val"] * 50, 50, "train"),
        (SPLITS, 0, "train"),
        (SPLITS, 2, "val"),  # a fifth of two rounds to none
        (["test"] * 50, 50, "train"),
    ],
)
def test_side_without_a_pair_is_refused_by_its_name(splits, num_fake, empty):
    reals, fakes = Reals(numbered(0, len(splits)), splits), Fakes(numbered(0, num_fake))
    message = refusal(make_sides, reals, fakes, fractions(), 0, 0, CPU)
    assert message.startswith(f"train_disc: the {empty} side has no pair ")
    assert f"{splits.count(empty)} real ones there and {num_fake} fake ones" in message


# --- the fakes ---

SAMPLES, PREDICTED, EARLIER = 0, 1000, 2000  # the first number of each kind
ALL_KINDS = Fakes(numbered(SAMPLES), numbered(PREDICTED), numbered(EARLIER))
REALS = Reals(-1 - numbered(0), SPLITS)


def sides(settings, fakes: Fakes = ALL_KINDS, seed: int = 0, iteration: int = 1):
    made, counts = make_sides(REALS, fakes, settings, seed, iteration, CPU)
    return {name: replace(data, latents=data.latents[:]) for name, data in made.items()}, counts


def kinds(data: DiscData) -> dict[int, set[int]]:
    """The row of each fake within its kind; fails if one is there twice."""
    fakes = [int(value) for value in data.latents[data.real < 0.5].flatten()]
    assert len(set(fakes)) == len(fakes)
    return {
        kind: {value - kind for value in fakes if kind <= value < kind + 1000}
        for kind in (SAMPLES, PREDICTED, EARLIER)
    }


@pytest.mark.parametrize("fakes", [Fakes(numbered(SAMPLES)), ALL_KINDS], ids=["samples", "all"])
def test_with_fractions_of_zero_a_side_is_the_rows_of_the_split(fakes):
    made, counts = sides(fractions(), fakes)
    assert list(counts.items()) == [("samples", 80), ("predicted", 0), ("replayed", 0)]
    for name, (real_rows, fake_rows) in pair_rows(SPLITS, 100, seed=0, iteration=1).items():
        expected = torch.cat([-1 - real_rows.float(), fake_rows.float()])
        assert torch.equal(made[name].latents.flatten(), expected)
        assert made[name].real.tolist() == [1] * len(real_rows) + [0] * len(fake_rows)
        assert made[name].labels is None


@pytest.mark.parametrize(
    ("predicted", "replay", "train", "val"),
    [
        (0.5, 0.0, (40, 40, 0), (10, 10, 0)),
        (0.0, 0.25, (60, 0, 20), (20, 0, 0)),
        (0.25, 0.5, (20, 20, 40), (15, 5, 0)),
        (0.9, 0.0, (8, 72, 0), (2, 18, 0)),
    ],
)
def test_each_kind_has_its_share_and_earlier_fakes_only_train(predicted, replay, train, val):
    made, counts = sides(fractions(predicted, replay))
    assert tuple(counts.values()) == train
    used = {name: kinds(data) for name, data in made.items()}
    for name, expected in (("train", train), ("val", val)):
        assert tuple(map(len, used[name].values())) == expected
        assert not used[name][SAMPLES] & used[name][PREDICTED]
    rows = [used[name][SAMPLES] | used[name][PREDICTED] for name in ("train", "val")]
    assert not rows[0] & rows[1], "as sample or as prediction, a row is on one side"


def test_validation_does_not_depend_on_what_is_replayed():
    with_replay, without = sides(fractions(0.25, 0.5))[0], sides(fractions(0.25, 0.0))[0]
    assert torch.equal(with_replay["val"].latents, without["val"].latents)
    assert not torch.equal(with_replay["train"].latents, without["train"].latents)


def test_samples_fill_the_share_of_earlier_fakes_that_are_missing():
    _, counts = sides(fractions(0.25, 0.5), replace(ALL_KINDS, earlier=None))
    assert counts == {"samples": 60, "predicted": 20, "replayed": 0}
    made, counts = sides(fractions(0.0, 0.5), Fakes(numbered(SAMPLES), None, numbered(EARLIER, 7)))
    assert counts == {"samples": 73, "predicted": 0, "replayed": 7}
    assert kinds(made["train"])[EARLIER] == set(range(7))


def test_replayed_fakes_are_chosen_from_the_whole_buffer_by_seed_and_iteration():
    def replayed(**key) -> set[int]:
        return kinds(sides(fractions(0.0, 0.25), **key)[0]["train"])[EARLIER]

    # 20 of 100: all in the lower 60 % with a chance below 0.6 ** 20 = 4e-5
    assert max(replayed()) > 60
    assert replayed() == replayed()
    assert replayed() != replayed(seed=1)
    assert replayed() != replayed(iteration=2)


@pytest.mark.parametrize(("predicted", "replay"), [(0.45, 0.45), (0.3, 0.6), (0.55, 0.35)])
def test_rounded_shares_never_exceed_the_side(predicted, replay):
    for rows in range(1, 30):
        settings = fractions(predicted, replay)
        mixed, counts = mix_fakes(ALL_KINDS, torch.arange(rows), settings, stream())
        assert sum(len(chosen) for _, chosen in mixed) == sum(counts.values()) == rows
        assert abs(counts["predicted"] - predicted * rows) <= 0.5
        assert abs(counts["replayed"] - replay * rows) <= 0.5


# --- classes ---


def test_every_class_has_as_many_reals_as_fakes_on_each_side():
    real_labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    fake_labels = torch.tensor([0] * 30 + [1] * 60 + [2] * 10)
    splits = [("train", "train", "train", "val")[k % 4] for k in range(100)]
    reals = Reals(REALS.latents, splits, real_labels)
    fakes = replace(ALL_KINDS, labels=fake_labels, earlier_labels=fake_labels.flip(0))
    made, counts = make_sides(reals, fakes, fractions(0.25, 0.25), 0, 1, CPU)
    assert min(counts.values()) > 0
    for name, side in made.items():
        real = side.real > 0.5
        assert bool(real[: int(real.sum())].all()), "reals first"
        ours, theirs = (torch.bincount(side.labels[part], minlength=3) for part in (real, ~real))
        assert ours.tolist() == theirs.tolist()
        assert int(ours.min()) > 0
        for value, label, is_real in zip(side.latents[:].flatten(), side.labels, real, strict=True):
            index = int(value)
            if is_real:
                assert (label, name) == (real_labels[-1 - index], splits[-1 - index])
            else:
                labels = fakes.earlier_labels if index >= EARLIER else fakes.labels
                assert label == labels[index % 1000]
                assert name == "train" or index < EARLIER


def test_class_without_reals_on_a_side_has_no_fakes_there():
    labels, fakes = torch.tensor([0] * 20 + [1] * 5), Fakes(numbered(0, 40))
    fakes = replace(fakes, labels=torch.tensor([0, 1] * 20))
    reals = Reals(numbered(0, 25), ["train", "val"] * 10 + ["train"] * 5, labels)
    made, _ = make_sides(reals, fakes, fractions(), 0, 0, CPU)
    assert made["val"].labels.unique().tolist() == [0]
    reals = replace(reals, splits=["train"] * 25)
    message = refusal(make_sides, reals, fakes, fractions(), 0, 0, CPU)
    assert message.startswith("train_disc: the val side has no pair")


# --- the replay buffer ---


def fakes_of(iteration: int, count: int = 64) -> torch.Tensor:
    return numbered(1000 * iteration, count)


def origins(buffer: torch.Tensor, iterations: int) -> list[int]:
    """How many of the buffer's latents are of each iteration; fails if one is there twice."""
    values = buffer.flatten().tolist()
    assert len(set(values)) == len(values)
    return [sum(1000 * i <= v < 1000 * (i + 1) for v in values) for i in range(iterations)]


def grow(iterations: int, seed: int = 0) -> torch.Tensor:
    buffer = None
    for iteration in range(iterations):
        buffer = update_replay(fakes_of(iteration), buffer, seed, iteration)
    return buffer


@pytest.mark.parametrize("iterations", [1, 2, 3, 6])
def test_buffer_keeps_its_size_and_half_of_it_is_new_each_time(iterations):
    found = origins(grow(iterations), iterations)
    assert sum(found) == 64
    assert found[-1] == (64 * (1 - KEPT) if iterations > 1 else 64)


def test_earlier_iterations_are_forgotten_geometrically():
    """The mean number over 200 seeds; 8 of 64 with a variance below 8 each."""
    counts = torch.tensor([origins(grow(4, seed), 4) for seed in range(200)]).double()
    expected = torch.tensor([8.0, 8.0, 16.0, 32.0]).double()
    # standard error below sqrt(16 / 200) = 0.28; allow four
    torch.testing.assert_close(counts.mean(0), expected, rtol=0, atol=1.13)


def test_buffer_follows_seed_and_iteration():
    buffer = grow(1)
    first, again, *others = (
        update_replay(fakes_of(1), buffer, *key) for key in ((0, 1), (0, 1), (1, 1), (0, 2))
    )
    assert torch.equal(first, again)
    assert not any(torch.equal(first, other) for other in others)


def test_smaller_earlier_buffer_is_kept_whole_and_new_fakes_fill_the_rest():
    assert origins(update_replay(fakes_of(1), fakes_of(0, 10), 0, 1), 2) == [10, 54]


def test_labels_of_the_buffer_are_those_of_its_latents():
    """Latents that say their own class, through three rounds."""
    classes = Classes(("day", "night"), {"train": torch.tensor([0] * 30 + [1] * 10)})
    buffer = None
    for iteration in range(3):
        labels = classes.fake_labels(40, 0, iteration)
        buffer = update_replay(labels.float().view(-1, 1, 1, 1), buffer, 0, iteration)
    assert torch.equal(buffer.flatten().long(), replay_labels(classes, 40, 0, 2))


# --- re-noising ---


def clean(rows: int = 400) -> DiscData:
    latents = torch.randn(rows, 4, 8, 8, generator=stream(1))
    return DiscData(latents, (torch.arange(rows) < rows // 2).float())


def test_every_row_is_noised_to_its_timestep():
    before, limit = clean(), 497
    after = renoise(before, PROCESS, limit, stream())
    assert torch.equal(after.real, before.real)
    assert int(after.timesteps.max()) < limit
    signal, noise = PROCESS.coefficients(after.timesteps, before.latents)
    eps = (after.latents - signal * before.latents) / noise
    torch.testing.assert_close(
        PROCESS.add_noise(before.latents, eps, after.timesteps), after.latents
    )
    # 102,400 standard normal numbers: standard errors 0.0031 and 0.0022, and float32 divides
    # by a noise of at least 0.006; allow four
    assert abs(float(eps.mean())) < 0.0125
    assert abs(float(eps.std()) - 1) < 0.0089
    assert len({float(value) for value in eps[:, 0, 0, 0]}) == len(before)
    reals, fakes = (after.timesteps[after.real == kind].double() for kind in (1, 0))
    # each mean is of 200 numbers uniform on 497: standard error 497 / sqrt(12 * 200) = 10
    assert abs(float(reals.mean() - fakes.mean())) < 4 * 10 * 2**0.5


def test_stream_decides_noise_and_timesteps():
    first, again, other = (renoise(clean(), PROCESS, 497, stream(seed)) for seed in (0, 0, 1))
    for field in ("latents", "timesteps"):
        assert torch.equal(getattr(first, field), getattr(again, field))
        assert not torch.equal(getattr(first, field), getattr(other, field))


def test_inputs_are_the_same_rows_of_everything_that_the_data_has():
    assert clean(4).inputs(slice(1, 3))[1:] == (None, None)
    data = replace(renoise(clean(4), PROCESS, 497, stream()), labels=torch.arange(4))
    inputs = data.inputs(torch.tensor([3, 0]))
    assert torch.equal(inputs.latents, data.latents[[3, 0]])
    assert torch.equal(inputs.timesteps, data.timesteps[[3, 0]])
    assert inputs.labels.tolist() == [3, 0]


@pytest.mark.parametrize("count", [MIN_SAMPLES, 4, 7, 20])
@pytest.mark.parametrize(("train", "val"), [(2, 1), (100, 1), (3, 3), (1000, 250)])
def test_fewest_samples_that_are_accepted_make_both_sides(count: int, train: int, val: int):
    splits = ["train"] * min(train, count - min(val, round(count * VAL_SHARE)))
    splits += ["val"] * min(val, round(count * VAL_SHARE))  # as draw_reals takes them
    pairs = pair_rows(splits, count, seed=0, iteration=0)
    assert all(len(rows) for side in pairs.values() for rows in side)
