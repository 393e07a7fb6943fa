"""Fresh critics: what they tell apart, what they cannot, and that they judge only unseen groups."""

from __future__ import annotations

from statistics import fmean

import numpy as np
import pytest
import torch
from small_evaluation import evaluate_params

from advloop.core.errors import UserError
from advloop.evaluation import critic
from advloop.evaluation.critic import (
    FOLDS,
    area_under_curve,
    fold_rows,
    fresh_critic,
    null_errors,
    statistics,
    train_critic,
)

CPU = torch.device("cpu")
PARAMS = evaluate_params(critic_widths=[16], critic_epochs=30)
ROWS = 60
GROUPS = [row % 12 for row in range(ROWS)]


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, rows: int = ROWS, side: int = 4) -> torch.Tensor:
    return torch.randn(rows, 3, side, side, generator=stream(seed))


def run(
    real: torch.Tensor, fakes: list[torch.Tensor], groups=GROUPS, fake_groups=None, params=PARAMS
) -> dict[str, float]:
    """Means by name; real: without augmentation, unless it has an axis of variants."""
    variants = real if real.ndim == 5 else real[None]
    reals = torch.stack([statistics(one, CPU) for one in variants])
    kinds = fake_groups or [range(len(fake)) for fake in fakes]
    found = [
        fresh_critic(reals, groups, statistics(fake, CPU), kind, params, 0, "critic", index)
        for index, (fake, kind) in enumerate(zip(fakes, kinds, strict=True))
    ]
    return {
        "critic_gap": fmean(one.gap.value for one in found),
        "critic_auc": fmean(one.auc for one in found),
        "critic_accuracy": fmean(one.accuracy for one in found),
    }


def allowed(num_real: int = ROWS, num_fake: int = ROWS) -> float:
    """Three standard errors of one test's accuracy; that of a mean over three is no larger."""
    return 3 * null_errors(num_real, num_fake)[0].values[0]


@pytest.mark.parametrize(("num_real", "num_fake"), [(ROWS, ROWS), (150, 30), (30, 150)])
def test_sets_of_one_distribution_are_not_told_apart_whatever_their_sizes(num_real, num_fake):
    groups = [row % 12 for row in range(num_real)]
    found = run(normal(0, num_real), [normal(seed, num_fake) for seed in (1, 2, 3)], groups)
    accuracy = allowed(num_real, num_fake)
    assert found["critic_accuracy"] == pytest.approx(0.5, abs=accuracy)
    assert found["critic_auc"] == pytest.approx(0.5, abs=accuracy)
    assert abs(found["critic_gap"]) < 2 * accuracy  # it ranges over two units, accuracy over one


def test_a_critic_that_sees_no_difference_says_one_half_whatever_the_sizes():
    nothing = torch.zeros(1, 90, 3)
    model = train_critic(nothing, torch.zeros(10, 3), PARAMS, 0, "a")
    assert float(model(nothing[0, :1]).detach().sigmoid()) == pytest.approx(0.5, abs=0.01)


def uniform(x: torch.Tensor) -> torch.Tensor:
    return (torch.special.ndtr(x) - 0.5) * 12**0.5


def smooth(x: torch.Tensor) -> torch.Tensor:
    x = (x + x.roll(1, 2)) / 2**0.5
    return (x + x.roll(1, 3)) / 2**0.5


def entangled(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x[:, :2], 0.9 * x[:, :1] + 0.19**0.5 * x[:, 2:]], 1)


def displaced(x: torch.Tensor) -> torch.Tensor:
    return (x + torch.tensor([0.7, 0.7, -0.7, -0.7]).view(4, 1)) / (1 + 0.7**2) ** 0.5


# All but the first keep mean 0 and variance 1.
@pytest.mark.parametrize("fake", [lambda x: x + 0.5, uniform, smooth, entangled, displaced])
def test_sets_that_differ_are_told_apart(fake):
    found = run(normal(0), [fake(normal(seed)) for seed in (1, 2, 3)])
    assert found["critic_accuracy"] > 0.5 + allowed()
    assert found["critic_auc"] > 0.75
    assert found["critic_gap"] > 0.3


def test_orientation_is_no_clue_if_the_reals_come_in_every_variant():
    ramp = torch.linspace(-1, 1, 4).view(4, 1)
    upright = normal(0) + ramp
    variants = torch.stack([upright, upright.flip(2)])
    augment_images = []
    for seed in (1, 2, 3):
        x = normal(seed) + ramp
        over = torch.rand(ROWS, generator=stream(seed + 10)) < 0.5
        augment_images.append(torch.where(over.view(-1, 1, 1, 1), x.flip(2), x))
    assert run(variants, augment_images)["critic_accuracy"] == pytest.approx(0.5, abs=allowed())
    assert run(upright, augment_images)["critic_accuracy"] > 0.5 + allowed()


def test_no_group_is_in_training_and_held_out_rows_of_one_fold(monkeypatch):
    """Statistics that are row numbers say who trains a critic and whom it judges."""
    trained, judged = [], []

    class Model(torch.nn.Module):
        def __init__(self, real, fake, *_):
            super().__init__()
            trained.extend([{*real.flatten().tolist()}, {*fake.flatten().tolist()}])

        def forward(self, x):
            judged.append({*x.flatten().tolist()})
            return x[:, 0]

    monkeypatch.setattr(critic, "train_critic", Model)
    numbers, kinds = torch.arange(60.0), [row // 6 for row in range(ROWS)]
    fresh_critic(numbers.view(1, 60, 1), GROUPS, numbers.view(60, 1), kinds, PARAMS, 0, 0)
    assert len(trained) == 2 * FOLDS
    for k, (seen, unseen) in enumerate(zip(trained, judged, strict=True)):
        groups = kinds if k % 2 else GROUPS
        assert not {groups[int(row)] for row in seen} & {groups[int(row)] for row in unseen}
        assert seen | unseen == {*range(60)}
    assert sum(map(len, judged)) == 120


def test_images_that_share_groups_are_folded_by_them():
    """Six near copies of each of ten images: a critic would recognise them in folds of rows."""
    copies = [normal(k, 10).repeat_interleave(6, 0) + 0.05 * normal(k + 1) for k in (2, 4, 6)]
    kinds = [[row // 6 for row in range(ROWS)]] * 3
    limit = 0.5 + allowed(10)  # they count as ten independent rows
    assert run(normal(0), copies)["critic_accuracy"] > limit
    assert run(normal(0), copies, fake_groups=kinds)["critic_accuracy"] < limit


def test_folds_hold_whole_groups_and_are_of_even_size():
    groups = "a" * 30 + "b" * 20 + "c" * 9 + "d" * 9 + "e" * 8 + "f" * 8 + "g" * 8 + "h" * 8
    folds = fold_rows(groups, 5, stream(0))
    for name in "abcdefgh":
        assert len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1
    # 30 | 20 | 9 + 8 | 9 + 8 | 8 + 8: largest first, each to the fold with the fewest rows
    assert torch.bincount(folds).tolist() == [30, 20, 17, 17, 16]
    single = fold_rows(range(52), 5, stream(0))
    assert sorted(torch.bincount(single).tolist()) == [10, 10, 10, 11, 11]
    assert not torch.equal(single, fold_rows(range(52), 5, stream(1)))


def test_two_groups_make_two_folds_and_one_is_refused():
    groups = [row % 2 for row in range(ROWS)]
    assert 0 <= run(normal(0), [normal(1)] * 3, groups)["critic_accuracy"] <= 1
    with pytest.raises(UserError, match=r"a single group; raise data\.test_fraction"):
        run(normal(0), [normal(1)] * 3, [0] * ROWS)


def test_area_under_the_curve_counts_ties_half():
    real, fake = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])
    # of six pairs: 1 > 0, 2 > 0 twice; 2 = 2 twice, half each; 1 < 2
    assert area_under_curve(real, fake) == pytest.approx(4 / 6)
    assert area_under_curve(fake, real) == pytest.approx(2 / 6)
    assert area_under_curve(torch.zeros(4), torch.zeros(9)) == 0.5


def test_the_auc_compares_rows_that_one_critic_judged(monkeypatch):
    """Critics that order their own fold without an error, each on a scale of its own."""
    shifts = iter(range(0, 100, 10))

    class Model(torch.nn.Module):
        def __init__(self, *_):
            super().__init__()
            self.shift = next(shifts)

        def forward(self, x):
            return x[:, 0] + self.shift

    monkeypatch.setattr(critic, "train_critic", Model)
    real, fake = torch.ones(1, 60, 1), -torch.ones(50, 1)
    assert fresh_critic(real, GROUPS, fake, range(50), PARAMS, 0, 0).auc == 1.0


@pytest.mark.parametrize(("n", "m"), [(245, 200), (20, 300)])
def test_null_errors_are_the_spread_of_critics_that_guess(n, m):
    draws = np.random.default_rng(0)
    values = []
    for _ in range(1000):
        real, fake = (torch.from_numpy(draws.normal(size=size)) for size in (n, m))
        hits = float((real > 0).double().mean() + (fake <= 0).double().mean()) / 2
        folds = zip(real.tensor_split(FOLDS), fake.tensor_split(FOLDS), strict=True)
        values.append((hits, fmean(area_under_curve(*fold) for fold in folds)))
    # a standard deviation of 1,000 draws is off by 2.2 % (one standard error); allow four
    expected = [score.values[0] for score in null_errors(n, m)]
    assert np.array(values).std(0, ddof=1) == pytest.approx(expected, rel=0.09)


def test_critics_of_another_key_have_another_initialisation():
    real, fake = (statistics(normal(seed), CPU) for seed in (0, 1))
    judge = [fresh_critic(real[None], GROUPS, fake, range(ROWS), PARAMS, 0, "a", k) for k in (0, 1)]
    again = fresh_critic(real[None], GROUPS, fake, range(ROWS), PARAMS, 0, "a", 0)
    assert judge[0] == again != judge[1]


def test_the_gap_without_a_group_leaves_out_its_held_out_rows(monkeypatch):
    """A critic that answers with the row's own statistic."""

    class Model(torch.nn.Module):
        def forward(self, x):
            return x[:, 0]

    monkeypatch.setattr(critic, "train_critic", lambda *_: Model())
    values, fake = torch.arange(6.0) / 3, torch.zeros(8, 1)
    gap = fresh_critic(values.view(1, 6, 1), list("aabbcc"), fake, range(8), PARAMS, 0, 0).gap
    chance = values.double().sigmoid()
    assert gap.value == pytest.approx(float(chance.mean()) - 0.5)
    expected = [float(chance[[k for k in range(6) if k // 2 != g]].mean()) - 0.5 for g in range(3)]
    assert gap.without == pytest.approx(expected)


def test_statistics_do_not_depend_on_the_batch(monkeypatch):
    whole = statistics(normal(0), CPU)
    monkeypatch.setattr(critic, "BATCH", 7)
    torch.testing.assert_close(statistics(normal(0), CPU), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "side", "count"), [(16, 8, 496), (16, 32, 1360), (1, 2, 16)])
def test_larger_latents_are_seen_at_more_levels(channels, side, count):
    found = statistics(torch.randn(2, channels, side, side, generator=stream(0)), CPU)
    assert found.shape == (2, count)
    assert bool(torch.isfinite(found).all())


def test_a_critic_that_runs_away_is_reported():
    params = evaluate_params(critic_learning_rate=1e30)
    with pytest.raises(UserError, match=r"lower evaluate\.critic_learning_rate=1e\+30"):
        run(normal(0), [normal(1)], params=params)
