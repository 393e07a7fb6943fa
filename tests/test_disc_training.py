"""The discriminator's data and its training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from advloop.disc_training import (
    DiscData,
    judge,
    make_side,
    split_rows,
    train_discriminator,
)
from advloop.discriminator import Discriminator
from advloop.errors import UserError
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams

MODEL = DiscriminatorParams(channels=[8], dropout=0.2)
PARAMS = TrainDiscParams(
    epochs=5,
    batch_size=16,
    learning_rate=1e-2,
    weight_decay=0.01,
    plateau_factor=0.5,
    plateau_patience=100,
)
COLUMNS = ["epoch", "learning_rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
SPLITS = (["train"] * 4 + ["val"]) * 20  # 80 train rows and 20 val rows, mixed


def interleaved(groups: int = 50, size: int = 4) -> tuple[list[str], list[str]]:
    """(group, split) of every image: each fifth group is a validation group."""
    names = [f"g{index % groups:02d}" for index in range(groups * size)]
    return names, ["val" if int(name[1:]) % 5 == 0 else "train" for name in names]


def side(seed: int, rows: int, shift: float = 0.0) -> DiscData:
    """``rows`` reals of mean ``shift`` and as many fakes of mean -``shift``, both of variance 1."""
    stream = torch.Generator().manual_seed(seed)
    latents = torch.randn(2 * rows, 4, 8, 8, generator=stream)
    real = torch.cat([torch.ones(rows), torch.zeros(rows)])
    return DiscData(latents + shift * (2 * real - 1).view(-1, 1, 1, 1), real)


def fit(train: DiscData, val: DiscData, seed: int = 0, iteration: int = 0, **changes):
    rows: list[dict[str, float]] = []
    params = replace(PARAMS, **changes)
    result = train_discriminator(params, MODEL, train, val, seed, iteration, rows.append)
    assert rows == result.history
    return result


def rebuild(result, weights: dict[str, torch.Tensor]) -> Discriminator:
    model = Discriminator(**result.config)
    model.load_state_dict(weights)
    return model


# --- the split ---


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


def test_a_side_gathers_the_chosen_rows_with_their_labels():
    real = torch.arange(10.0).view(10, 1, 1, 1)
    fake = 100 + torch.arange(10.0).view(10, 1, 1, 1)
    data = make_side(real, fake, (torch.tensor([3, 1]), torch.tensor([9, 0])))
    assert data.latents.flatten().tolist() == [3, 1, 109, 100]
    assert data.real.tolist() == [1, 1, 0, 0]
    assert len(data) == 4


# --- the training ---


def test_training_separates_data_that_can_be_separated():
    result = fit(side(0, 60, shift=0.3), side(1, 60, shift=0.3))
    assert result.history[-1]["val_accuracy"] > 0.9
    assert result.history[-1]["val_loss"] < 0.5


def test_identical_distributions_stay_near_chance():
    result = fit(side(0, 60), side(1, 200), epochs=8)
    for row in result.history:
        # 400 independent guesses: standard error 0.025; allow four
        assert abs(row["val_accuracy"] - 0.5) < 0.1
    assert result.history[-1]["val_loss"] > 0.6  # log 2 = 0.693 is the best one can do


def test_a_positive_logit_means_real():
    result = fit(side(0, 60, shift=0.3), side(1, 60, shift=0.3))
    model = rebuild(result, result.final).eval()
    with torch.no_grad():
        assert float(model(torch.full((1, 4, 8, 8), 0.3) + side(2, 1).latents[:1])) > 0
        assert float(model(torch.full((1, 4, 8, 8), -0.3) + side(2, 1).latents[:1])) < 0


def overfitted():
    """Chance labels and a high rate: validation loss turns up long before the last epoch."""
    return fit(side(0, 30), side(1, 60), epochs=12, learning_rate=3e-2)


def test_the_best_checkpoint_is_the_epoch_of_least_validation_loss_and_final_is_the_last():
    val = side(1, 60)
    result = overfitted()
    losses = [row["val_loss"] for row in result.history]
    assert result.best_epoch == 1 + losses.index(min(losses))
    assert result.best_epoch < len(losses)  # otherwise best and final would be one
    best, _ = judge(rebuild(result, result.best), val, PARAMS.batch_size)
    final, _ = judge(rebuild(result, result.final), val, PARAMS.batch_size)
    assert best == min(losses)
    assert final == losses[-1] != best


def test_a_stagnating_validation_loss_lowers_the_learning_rate():
    """Patience 0: an epoch that is no better than the best by 1e-4 of it halves the rate."""
    result = fit(side(0, 30), side(1, 60), epochs=10, learning_rate=3e-2, plateau_patience=0)
    rate, best, expected = 3e-2, math.inf, []
    for row in result.history:
        expected.append(rate)
        if row["val_loss"] < best * (1 - 1e-4):
            best = row["val_loss"]
        else:
            rate *= 0.5
    rates = [row["learning_rate"] for row in result.history]
    assert rates == pytest.approx(expected)
    assert rates[-1] < rates[0]


def test_a_falling_validation_loss_keeps_the_learning_rate():
    result = fit(
        side(0, 60, shift=0.1), side(1, 60, shift=0.1), learning_rate=1e-3, plateau_patience=0
    )
    losses = [row["val_loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True)
    assert {row["learning_rate"] for row in result.history} == {1e-3}


def test_the_reported_learning_rate_is_the_one_that_the_epoch_used():
    used = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, _args, _kwargs: used.append(optimizer.param_groups[0]["lr"])
    )
    try:
        result = fit(side(0, 8), side(1, 60), epochs=10, learning_rate=3e-2, plateau_patience=0)
    finally:
        handle.remove()
    assert [row["learning_rate"] for row in result.history] == used  # one batch an epoch
    assert len(set(used)) > 1


def test_every_row_of_the_history_has_every_column():
    result = fit(side(0, 30), side(1, 30))
    assert all(list(row) == COLUMNS for row in result.history)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4, 5]
    for row in result.history:
        assert 0 <= row["train_accuracy"] <= 1
        assert 0 <= row["val_accuracy"] <= 1


def test_judging_does_not_depend_on_the_batch_size_and_leaves_the_mode_alone():
    torch.manual_seed(0)
    model, data = Discriminator(4, [8], dropout=0.9).train(), side(0, 25, shift=0.2)
    loss, accuracy = judge(model, data, 50)
    assert judge(model, data, 7) == (pytest.approx(loss, rel=1e-5), accuracy)
    assert model.training


def test_judging_counts_a_logit_above_zero_as_real():
    class Constant(torch.nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            return latents[:, 0, 0, 0]

    latents = torch.tensor([2.0, -1.0, 3.0, -4.0]).view(4, 1, 1, 1)
    loss, accuracy = judge(Constant(), DiscData(latents, torch.tensor([1.0, 1.0, 0.0, 0.0])), 3)
    softplus = [math.log1p(math.exp(value)) for value in (-2.0, 1.0, 3.0, -4.0)]
    assert loss == pytest.approx(sum(softplus) / 4, rel=1e-6)
    assert accuracy == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["train", "val"])
def test_data_that_is_not_finite_is_refused_before_on_epoch_sees_the_epoch(value, where):
    sides = {"train": side(0, 30), "val": side(1, 30)}
    sides[where].latents[3, 0, 0, 0] = value
    rows: list[dict[str, float]] = []
    with pytest.raises(UserError) as caught:
        train_discriminator(PARAMS, MODEL, sides["train"], sides["val"], 0, 0, rows.append)
    message = str(caught.value)
    assert message.startswith("train_disc: ")
    assert f"{where}_loss=nan" in message
    assert "epoch 1" in message
    assert len(message.splitlines()) == 1
    assert not rows


def test_the_same_seed_trains_to_the_same_discriminator_twice():
    torch.manual_seed(1)
    first = fit(side(0, 30), side(1, 30))
    torch.manual_seed(2)  # the global state plays no part
    second = fit(side(0, 30), side(1, 30))
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    for one, other in ((first.best, second.best), (first.final, second.final)):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_iteration_trains_to_another_discriminator():
    first, second = (fit(side(0, 30), side(1, 30), iteration=i) for i in (0, 1))
    assert any(not torch.equal(first.final[name], second.final[name]) for name in first.final)


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    fit(side(0, 10), side(1, 10), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)
