"""Fresh critics: what they tell apart, what they cannot, and that they never cheat."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch

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
    two_sample_test,
)
from advloop.params.evaluation import EvaluateParams

CPU = torch.device("cpu")
PARAMS = EvaluateParams(
    features="lite0",
    feature_size=32,
    num_samples=60,
    num_seeds=3,
    num_inference_steps=1,
    batch_size=8,
    critic_widths=[16],
    critic_epochs=30,
    critic_learning_rate=1e-2,
)
ROWS = 60
GROUPS = [row % 12 for row in range(ROWS)]


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, rows: int = ROWS, side: int = 4) -> torch.Tensor:
    return torch.randn(rows, 3, side, side, generator=stream(seed))


def run(real: torch.Tensor, fakes: list[torch.Tensor], groups=GROUPS, **changes):
    """The test of unaugmented reals, unless real has an axis of variants."""
    variants = real if real.ndim == 5 else real[None]
    seeds = two_sample_test(variants, groups, fakes, PARAMS, 0, CPU, **changes)
    row = null_errors(variants.shape[1], len(fakes[0]))
    return row | {name: fmean(values) for name, values in seeds.items()}


def allowed(num_real: int = ROWS, num_fake: int = ROWS) -> float:
    """Three standard errors of one test; that of a mean over three is no larger."""
    return 3 * null_errors(num_real, num_fake)["critic_accuracy_null_se"]


# --- what is told apart, and what is not ---


def test_sets_of_one_distribution_are_not_told_apart():
    row = run(normal(0), [normal(1), normal(2), normal(3)])
    assert row["critic_accuracy"] == pytest.approx(0.5, abs=allowed())
    assert row["critic_auc"] == pytest.approx(0.5, abs=3 * row["critic_auc_null_se"])
    assert abs(row["critic_gap"]) < 2 * allowed()  # it ranges over two units, accuracy over one


@pytest.mark.parametrize(("num_real", "num_fake"), [(150, 30), (30, 150)])
def test_sets_of_unequal_sizes_have_no_gap_of_their_own(num_real, num_fake):
    groups = [row % 10 for row in range(num_real)]
    fakes = [normal(seed, num_fake) for seed in (1, 2, 3)]
    row = run(normal(0, num_real), fakes, groups)
    assert row["critic_accuracy"] == pytest.approx(0.5, abs=allowed(num_real, num_fake))
    assert abs(row["critic_gap"]) < 2 * allowed(num_real, num_fake)


def test_a_critic_that_sees_no_difference_says_one_half_whatever_the_sizes():
    nothing = torch.zeros(1, 90, 3)
    model = train_critic(nothing, torch.zeros(10, 3), PARAMS, 0, "a")
    assert float(model(nothing[0, :1]).detach().sigmoid()) == pytest.approx(0.5, abs=0.01)


def uniform(seed: int) -> torch.Tensor:
    return (torch.rand(ROWS, 3, 4, 4, generator=stream(seed)) - 0.5) * 12**0.5  # variance 1


def smooth(seed: int) -> torch.Tensor:
    x = normal(seed)
    x = (x + x.roll(1, 2)) / 2**0.5
    return (x + x.roll(1, 3)) / 2**0.5  # variance 1, but neighbours are alike


def entangled(seed: int) -> torch.Tensor:
    x = normal(seed)
    return torch.cat([x[:, :2], 0.9 * x[:, :1] + 0.19**0.5 * x[:, 2:]], 1)


def displaced(seed: int) -> torch.Tensor:
    side = torch.tensor([0.7, 0.7, -0.7, -0.7]).view(4, 1)
    return (normal(seed) + side) / (1 + 0.7**2) ** 0.5


@pytest.mark.parametrize(
    "fake",
    [lambda seed: normal(seed) + 0.5, uniform, smooth, entangled, displaced],
    ids=["mean", "shape of the marginal", "neighbours", "channels", "place"],
)
def test_sets_that_differ_are_told_apart(fake):
    row = run(normal(0), [fake(1), fake(2), fake(3)])
    assert row["critic_accuracy"] > 0.5 + allowed()
    assert row["critic_auc"] > 0.75
    assert row["critic_gap"] > 0.3


def test_orientation_is_no_clue_where_the_reals_are_shown_in_every_variant():
    ramp = torch.linspace(-1, 1, 4).view(4, 1)
    upright = normal(0) + ramp
    variants = torch.stack([upright, upright.flip(2)])
    turned = []
    for seed in (1, 2, 3):
        x = normal(seed) + ramp
        over = torch.rand(ROWS, generator=stream(seed + 10)) < 0.5
        turned.append(torch.where(over.view(-1, 1, 1, 1), x.flip(2), x))
    assert run(variants, turned)["critic_accuracy"] == pytest.approx(0.5, abs=allowed())
    assert run(upright, turned)["critic_accuracy"] > 0.5 + allowed()


# --- critics judge only what they have not seen ---


def test_a_critic_that_memorises_its_rows_still_knows_nothing_of_others():
    real, fake = statistics(normal(0), CPU)[None], statistics(normal(1), CPU)
    params = replace(PARAMS, critic_widths=[64], critic_epochs=150)
    model = train_critic(real, fake, params, 0, "a")
    with torch.no_grad():
        assert bool((model(real[0]) > 0).all())
        assert bool((model(fake) < 0).all())
    found = fresh_critic(real, GROUPS, fake, range(ROWS), params, 0, 0)
    assert found["critic_accuracy"] == pytest.approx(0.5, abs=allowed())


def crowd(seed: int, members: int = 10) -> torch.Tensor:
    """Groups of rows that are nearly the same, as crops of one image are."""
    each = ROWS // members
    x = normal(seed, members).repeat_interleave(each, 0)
    return x + 0.05 * normal(seed + 1)


def test_the_look_of_a_group_is_no_clue():
    """Six near copies of each of ten reals: folded by rows, a critic would know them again."""
    real, fakes = crowd(0), [normal(seed) for seed in (2, 3, 4)]
    groups = [row // 6 for row in range(ROWS)]
    known = run(real, fakes, list(range(ROWS)))["critic_accuracy"]
    # the reals count as ten independent rows here
    assert run(real, fakes, groups)["critic_accuracy"] < 0.5 + allowed(10)
    assert known > 0.5 + allowed(10)


def test_fakes_that_share_groups_are_folded_by_them_too():
    real, fakes = normal(0), [crowd(seed) for seed in (2, 4, 6)]
    kinds = [[row // 6 for row in range(ROWS)]] * 3
    assert run(real, fakes)["critic_accuracy"] > 0.5 + allowed(10)
    assert run(real, fakes, fake_groups=kinds)["critic_accuracy"] < 0.5 + allowed(10)


def test_no_group_stands_in_training_and_held_out_of_one_fold(monkeypatch):
    """Statistics that are row numbers show who trains and who is judged."""
    trained, judged = [], []

    def spy(real, fake, *_):
        trained.append(({*real.flatten().tolist()}, {*fake.flatten().tolist()}))

        class Model(torch.nn.Module):
            def forward(self, x):
                judged.append({*x.flatten().tolist()})
                return x[:, 0]

        return Model()

    monkeypatch.setattr(critic, "train_critic", spy)
    real, fake = torch.arange(60.0).view(1, 60, 1), torch.arange(100.0, 150.0).view(50, 1)
    fresh_critic(real, GROUPS, fake, range(50), PARAMS, 0, 0)
    assert len(trained) == 5
    for fold, (reals, fakes) in enumerate(trained):
        held, held_fakes = judged[2 * fold : 2 * fold + 2]
        assert not {GROUPS[int(r)] for r in reals} & {GROUPS[int(r)] for r in held}
        assert reals | held == {*range(60)}
        assert not fakes & held_fakes
        assert fakes | held_fakes == {*range(100, 150)}
    assert sum(map(len, judged)) == 110


def test_folds_hold_whole_groups_and_are_of_even_size():
    groups = "a" * 30 + "b" * 20 + "c" * 9 + "d" * 9 + "e" * 8 + "f" * 8 + "g" * 8 + "h" * 8
    folds = fold_rows(groups, 5, stream(0))
    for name in "abcdefgh":
        assert len({int(f) for f, g in zip(folds, groups, strict=True) if g == name}) == 1
    # 30 | 20 | 9 + 8 | 9 + 8 | 8 + 8: largest first, each to the fold that has fewest
    assert torch.bincount(folds).tolist() == [30, 20, 17, 17, 16]


def test_single_rows_are_folded_at_random_and_evenly():
    folds = fold_rows(range(52), 5, stream(0))
    assert sorted(torch.bincount(folds).tolist()) == [10, 10, 10, 11, 11]
    assert not torch.equal(folds, fold_rows(range(52), 5, stream(1)))
    assert torch.equal(folds, fold_rows(range(52), 5, stream(0)))


def test_two_groups_make_two_folds_and_one_is_refused():
    groups = [row % 2 for row in range(ROWS)]
    assert 0 <= run(normal(0), [normal(1)] * 3, groups)["critic_accuracy"] <= 1
    with pytest.raises(UserError, match=r"a single group; raise data\.test_fraction"):
        run(normal(0), [normal(1)] * 3, [0] * ROWS)


# --- numbers ---


def test_area_under_the_curve_counts_ties_half():
    real, fake = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([0.0, 2.0])
    # of six pairs: 1 > 0, 2 > 0 twice; 2 = 2 twice, half each; 1 < 2
    assert area_under_curve(real, fake) == pytest.approx(4 / 6)
    assert area_under_curve(fake, real) == pytest.approx(2 / 6)
    assert area_under_curve(torch.zeros(4), torch.zeros(9)) == 0.5


@pytest.mark.parametrize(("n", "m"), [(245, 200), (20, 300)])
def test_null_errors_are_the_spread_of_critics_that_guess(n, m):
    draws = np.random.default_rng(0)
    values = []
    for _ in range(1000):
        real, fake = (torch.from_numpy(draws.normal(size=size)) for size in (n, m))
        hits = float((real > 0).double().mean() + (fake <= 0).double().mean()) / 2
        folds = zip(real.tensor_split(FOLDS), fake.tensor_split(FOLDS), strict=True)
        values.append((hits, fmean(area_under_curve(*fold) for fold in folds)))
    expected = null_errors(n, m)
    # a standard deviation of 1,000 draws is off by 2.2 % (one standard error); allow four
    spread = np.array(values).std(0, ddof=1)
    assert spread[0] == pytest.approx(expected["critic_accuracy_null_se"], rel=0.09)
    assert spread[1] == pytest.approx(expected["critic_auc_null_se"], rel=0.09)


def test_every_set_of_fakes_meets_critics_of_its_own_initialisation(monkeypatch):
    calls = []

    def spy(*args):
        calls.append((args[2], args[-1]))
        return {"critic_auc": float(len(calls))}

    real, fakes = normal(0), [normal(1), normal(2), normal(3)]
    assert set(two_sample_test(real[None], GROUPS, fakes, PARAMS, 0, CPU)) == {
        "critic_accuracy",
        "critic_auc",
        "critic_gap",
    }
    monkeypatch.setattr(critic, "fresh_critic", spy)
    values = two_sample_test(real[None], GROUPS, fakes, PARAMS, 0, CPU)
    assert values == {"critic_auc": [1.0, 2.0, 3.0]}
    assert [index for _, index in calls] == [0, 1, 2]
    for (seen, _), fake in zip(calls, fakes, strict=True):
        assert torch.equal(seen, statistics(fake, CPU))


def test_statistics_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    whole = statistics(normal(0), CPU)
    monkeypatch.setattr(critic, "BATCH", 7)
    torch.testing.assert_close(statistics(normal(0), CPU), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "side", "count"), [(16, 8, 496), (16, 32, 1360), (1, 2, 16)])
def test_larger_latents_are_seen_at_more_levels(channels, side, count):
    found = statistics(torch.randn(2, channels, side, side, generator=stream(0)), CPU)
    assert found.shape == (2, count)
    assert bool(torch.isfinite(found).all())


def test_a_critic_that_runs_away_is_reported():
    params = replace(PARAMS, critic_learning_rate=1e30)
    with pytest.raises(UserError, match=r"lower evaluate\.critic_learning_rate=1e\+30"):
        two_sample_test(normal(0)[None], GROUPS, [normal(1)] * 3, params, 0, CPU)


def test_the_auc_compares_rows_that_one_critic_judged(monkeypatch):
    """Critics that order their own fold without an error, each on a scale of its own."""
    shifts = iter(range(0, 100, 10))

    def shifted(*_):
        class Model(torch.nn.Module):
            shift = next(shifts)

            def forward(self, x):
                return x[:, 0] + self.shift

        return Model()

    monkeypatch.setattr(critic, "train_critic", shifted)
    real, fake = torch.ones(1, 60, 1), -torch.ones(50, 1)
    found = fresh_critic(real, GROUPS, fake, range(50), PARAMS, 0, 0)
    assert found["critic_auc"] == 1.0
