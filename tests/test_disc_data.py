"""The discriminator's data: which rows stand where, and what the fake class is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from advloop.core.errors import UserError
from advloop.disc.data import DiscData, Fakes, make_sides, mix_fakes, renoise, split_rows
from advloop.params.discriminator import TrainDiscParams
from advloop.schedule import add_noise, make_alphas_cumprod

SPLITS = (["train"] * 4 + ["val"]) * 20  # 80 train rows and 20 val rows, mixed
ALPHAS = make_alphas_cumprod("squaredcos_cap_v2", 1000)
CPU = torch.device("cpu")


def interleaved(groups: int = 50, size: int = 4) -> tuple[list[str], list[str]]:
    """(group, split) of every image: each fifth group is a validation group."""
    names = [f"g{index % groups:02d}" for index in range(groups * size)]
    return names, ["val" if int(name[1:]) % 5 == 0 else "train" for name in names]


def test_no_image_group_stands_on_both_sides_of_the_split():
    groups, splits = interleaved()
    sides = split_rows(splits, 200, seed=0, iteration=0)
    found = {name: {groups[row] for row in rows[0].tolist()} for name, rows in sides.items()}
    assert found["train"]
    assert found["val"]
    assert not found["train"] & found["val"]


def test_reals_keep_their_side_and_test_images_are_never_drawn():
    splits = [*SPLITS, *["test"] * 30]
    sides = split_rows(splits, 100, seed=0, iteration=0)
    for name, (reals, _) in sides.items():
        assert {splits[row] for row in reals.tolist()} == {name}


@pytest.mark.parametrize("num_fake", [20, 60, 100, 1000])
def test_both_classes_have_equally_many_rows_on_each_side(num_fake):
    for reals, fakes in split_rows(SPLITS, num_fake, seed=0, iteration=0).values():
        assert len(reals) == len(fakes) > 0


def test_equally_many_reals_and_fakes_are_all_used_and_split_four_to_one():
    sides = split_rows(SPLITS, 100, seed=0, iteration=0)
    assert [len(rows) for rows in sides["train"]] == [80, 80]
    assert [len(rows) for rows in sides["val"]] == [20, 20]


@pytest.mark.parametrize("num_fake", [25, 50, 3000])
def test_the_split_stays_near_four_to_one_whichever_class_is_larger(num_fake):
    sides = split_rows(SPLITS, num_fake, seed=0, iteration=0)
    smaller = min(num_fake, len(SPLITS))
    assert len(sides["train"][0]) + len(sides["val"][0]) == smaller
    assert len(sides["val"][0]) == pytest.approx(0.2 * smaller, abs=1)


def test_no_row_is_used_twice():
    sides = split_rows(SPLITS, 90, seed=0, iteration=0)
    for kind, total in ((0, len(SPLITS)), (1, 90)):
        rows = torch.cat([sides["train"][kind], sides["val"][kind]]).tolist()
        assert len(set(rows)) == len(rows)
        assert 0 <= min(rows) <= max(rows) < total


def test_rows_of_both_classes_are_shuffled_on_both_sides():
    for reals, fakes in split_rows(SPLITS, 100, seed=0, iteration=0).values():
        for rows in (reals, fakes):
            assert not torch.equal(rows, rows.sort().values)


def test_the_larger_class_gives_up_rows_at_random():
    """Of 1,000 fakes 80 are used for training: from everywhere, not from the first ones."""
    fakes = split_rows(SPLITS, 1000, seed=0, iteration=0)["train"][1].double()
    # the mean of 80 uniform draws has standard error 288.7 / sqrt(80) = 32; allow four
    assert abs(float(fakes.mean()) - 499.5) < 129
    reals = split_rows(SPLITS, 20, seed=0, iteration=0)["train"][0]
    assert len(reals) == 16
    assert int(reals.max()) > 60  # chance of missing the upper 40 %: below 0.6 ** 16 = 3e-4


def test_the_split_differs_by_iteration_and_seed_and_repeats_for_the_same():
    def flat(seed: int, iteration: int) -> list[int]:
        sides = split_rows(SPLITS, 100, seed, iteration)
        return torch.cat([*sides["train"], *sides["val"]]).tolist()

    assert flat(0, 0) == flat(0, 0)
    assert flat(0, 0) != flat(0, 1)
    assert flat(0, 0) != flat(1, 0)


@pytest.mark.parametrize(
    ("splits", "num_fake", "empty"),
    [
        (["train"] * 50, 50, "val"),
        (["val"] * 50, 50, "train"),
        (SPLITS, 0, "train"),
        (SPLITS, 2, "val"),  # a fifth of two rounds to none
        ([], 50, "train"),
        (["test"] * 50, 50, "train"),
    ],
)
def test_a_side_without_rows_of_one_class_is_refused_by_its_name(splits, num_fake, empty):
    with pytest.raises(UserError) as caught:
        split_rows(splits, num_fake, seed=0, iteration=0)
    message = str(caught.value)
    assert message.startswith(f"train_disc: the {empty} side has ")
    assert len(message.splitlines()) == 1


# --- the fake class ---

SAMPLES, PREDICTED, EARLIER = 0, 1000, 2000  # what a latent of each kind counts from


def numbered(start: int, count: int = 100) -> torch.Tensor:
    """Latents (count, 1, 1, 1) whose value says which one it is."""
    return (start + torch.arange(float(count))).view(-1, 1, 1, 1)


def params(predicted: float = 0.0, replay: float = 0.0) -> TrainDiscParams:
    return TrainDiscParams(
        epochs=1,
        batch_size=16,
        learning_rate=1e-2,
        weight_decay=0.01,
        plateau_factor=0.5,
        plateau_patience=100,
        predicted_fraction=predicted,
        replay_fraction=replay,
        r1_weight=0.0,
        r1_sigma=0.1,
        stop_accuracy=None,
        renoise_min_alpha_bar=0.5,
    )


ALL_KINDS = Fakes(numbered(SAMPLES), numbered(PREDICTED), numbered(EARLIER))


def sides(settings: TrainDiscParams, fakes: Fakes = ALL_KINDS, seed: int = 0, iteration: int = 1):
    real = -1 - numbered(0)
    made, counts = make_sides(real, fakes, SPLITS, settings, seed, iteration, CPU)
    return {name: replace(data, latents=data.latents[:]) for name, data in made.items()}, counts


def kinds(data: DiscData) -> dict[int, set[int]]:
    """Index of each fake within its kind; fails where one stands there twice."""
    fakes = [int(value) for value in data.latents[data.real < 0.5].flatten()]
    assert len(set(fakes)) == len(fakes)
    return {
        kind: {value - kind for value in fakes if kind <= value < kind + 1000}
        for kind in (SAMPLES, PREDICTED, EARLIER)
    }


def test_without_other_fakes_a_side_is_the_rows_of_the_split_with_their_labels():
    made, counts = sides(params(), Fakes(numbered(SAMPLES)))
    assert counts == {"samples": 80, "predicted": 0, "replayed": 0}
    for name, (reals, fakes) in split_rows(SPLITS, 100, seed=0, iteration=1).items():
        expected = torch.cat([-1 - reals.float(), fakes.float()])
        assert torch.equal(made[name].latents.flatten(), expected)
        assert made[name].real.tolist() == [1] * len(reals) + [0] * len(fakes)
        assert len(made[name]) == len(expected)


def test_fractions_of_zero_leave_out_the_fakes_that_are_there():
    without, _ = sides(params(), Fakes(numbered(SAMPLES)))
    for name, data in sides(params())[0].items():
        assert torch.equal(data.latents, without[name].latents)


@pytest.mark.parametrize(
    ("predicted", "replay", "train", "val"),
    [
        (0.5, 0.0, (40, 40, 0), (10, 10, 0)),
        (0.0, 0.25, (60, 0, 20), (20, 0, 0)),
        (0.25, 0.5, (20, 20, 40), (15, 5, 0)),
        (0.9, 0.0, (8, 72, 0), (2, 18, 0)),
    ],
)
def test_each_kind_has_its_share_and_only_training_sees_earlier_fakes(
    predicted, replay, train, val
):
    made, counts = sides(params(predicted, replay))
    for name, expected in (("train", train), ("val", val)):
        found = kinds(made[name])
        assert tuple(len(found[kind]) for kind in (SAMPLES, PREDICTED, EARLIER)) == expected
        assert int((made[name].real < 0.5).sum()) == int((made[name].real > 0.5).sum())
    assert tuple(counts[name] for name in ("samples", "predicted", "replayed")) == train


def test_no_index_of_the_fake_class_stands_on_both_sides_as_sample_or_prediction():
    made, _ = sides(params(0.5, 0.25))
    used = {name: kinds(data) for name, data in made.items()}
    for name in used:
        assert not used[name][SAMPLES] & used[name][PREDICTED]
    train, val = (used[name][SAMPLES] | used[name][PREDICTED] for name in ("train", "val"))
    assert not train & val


def test_the_validation_side_is_the_same_whatever_is_replayed():
    with_replay, without = sides(params(0.25, 0.5))[0], sides(params(0.25, 0.0))[0]
    assert torch.equal(with_replay["val"].latents, without["val"].latents)
    assert not torch.equal(with_replay["train"].latents, without["train"].latents)


def test_the_first_iteration_fills_the_share_of_earlier_fakes_with_samples():
    _, counts = sides(params(0.25, 0.5), Fakes(numbered(SAMPLES), numbered(PREDICTED)))
    assert counts == {"samples": 60, "predicted": 20, "replayed": 0}


def test_a_small_buffer_gives_each_of_its_fakes_once_and_samples_fill_the_rest():
    fakes = Fakes(numbered(SAMPLES), earlier=numbered(EARLIER, 7))
    made, counts = sides(params(0.0, 0.5), fakes)
    assert counts == {"samples": 73, "predicted": 0, "replayed": 7}
    assert kinds(made["train"])[EARLIER] == set(range(7))


def test_replayed_fakes_are_drawn_from_the_whole_buffer_by_seed_and_iteration():
    def drawn(**key) -> set[int]:
        return kinds(sides(params(0.0, 0.25), **key)[0]["train"])[EARLIER]

    # 20 of 100: all in the lower 60 % with a chance below 0.6 ** 20 = 4e-5
    assert max(drawn()) > 60
    assert drawn() == drawn()
    assert drawn() != drawn(seed=1)
    assert drawn() != drawn(iteration=2)


@pytest.mark.parametrize("rows", range(1, 30))
@pytest.mark.parametrize(("predicted", "replay"), [(0.45, 0.45), (0.3, 0.6), (0.55, 0.35)])
def test_rounded_shares_never_exceed_the_side(rows, predicted, replay):
    stream = torch.Generator().manual_seed(0)
    mixed, counts = mix_fakes(ALL_KINDS, torch.arange(rows), params(predicted, replay), stream)
    assert sum(len(chosen) for _, chosen in mixed) == sum(counts.values()) == rows
    assert abs(counts["predicted"] - predicted * rows) <= 0.5
    assert abs(counts["replayed"] - replay * rows) <= 0.5


# --- re-noising ---


def data(rows: int = 400) -> DiscData:
    latents = torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return DiscData(latents, (torch.arange(rows) < rows // 2).float())


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_row_is_noised_to_the_timestep_that_it_is_shown_with():
    clean, limit = data(), 497
    noised = renoise(clean, ALPHAS, limit, stream())
    assert torch.equal(noised.real, clean.real)
    assert noised.timesteps is not None
    assert int(noised.timesteps.max()) < limit
    signal, noise = ALPHAS[noised.timesteps].sqrt(), (1 - ALPHAS[noised.timesteps]).sqrt()
    eps = (noised.latents - signal.view(-1, 1, 1, 1) * clean.latents) / noise.view(-1, 1, 1, 1)
    torch.testing.assert_close(
        add_noise(clean.latents, eps, noised.timesteps, ALPHAS), noised.latents
    )
    # 102,400 standard normal numbers: standard errors 0.0031 and 0.0022, and float32 divides
    # by a noise of at least 0.006; allow four
    assert abs(float(eps.mean())) < 0.0125
    assert abs(float(eps.std()) - 1) < 0.0089
    assert len({float(value) for value in eps[:, 0, 0, 0]}) == len(clean)


def test_reals_and_fakes_are_noised_alike():
    noised = renoise(data(), ALPHAS, 497, stream())
    assert noised.timesteps is not None
    reals, fakes = (noised.timesteps[noised.real == kind].double() for kind in (1, 0))
    # each mean is of 200 numbers uniform on 497: standard error 497 / sqrt(12 * 200) = 10
    assert abs(float(reals.mean() - fakes.mean())) < 4 * 10 * 2**0.5


def test_the_stream_decides_noise_and_timesteps():
    one, same, other = (renoise(data(), ALPHAS, 497, stream(seed)) for seed in (0, 0, 1))
    assert one.timesteps is not None
    assert other.timesteps is not None
    assert same.timesteps is not None
    assert torch.equal(one.latents, same.latents)
    assert torch.equal(one.timesteps, same.timesteps)
    assert not torch.equal(one.latents, other.latents)
    assert not torch.equal(one.timesteps, other.timesteps)


def test_a_discriminator_is_told_timesteps_only_where_there_are_some():
    clean = data(4)
    assert len(clean.shown(slice(1, 3))) == 1
    noised = renoise(clean, ALPHAS, 497, stream())
    latents, timesteps = noised.shown(torch.tensor([3, 0]))
    assert torch.equal(latents, noised.latents[[3, 0]])
    assert noised.timesteps is not None
    assert torch.equal(timesteps, noised.timesteps[[3, 0]])
