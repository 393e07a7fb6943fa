"""Training of the diffusion model: what every step does, and what every epoch reports."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise

import pytest
import torch
from diffusers.training_utils import EMAModel
from refusal import refusal
from small_diffusion import copy_weights, equal, make_criterion, make_setup, run
from tiny_unet import CONFIG
from torch.optim.optimizer import register_optimizer_step_pre_hook

from advloop.diffusion.batch import noise_only
from advloop.diffusion.criterion import held_out
from advloop.models.denoiser import Denoiser, build_denoiser, frozen_copy
from advloop.objectives.seed import seed_objective
from advloop.training.batches import Side
from advloop.training.diffusion import Setup, learning_rate_factor, train_diffusion, validate
from advloop.training.weights import average_decay


@pytest.fixture
def steps():
    """(learning rate, global norm of the gradient) at every optimizer step."""
    seen: list[tuple[float, float]] = []

    def look(optimizer, _args, _kwargs):
        group = optimizer.param_groups[0]
        norms = [parameter.grad.norm() for parameter in group["params"]]
        seen.append((float(group["lr"]), float(torch.stack(norms).norm())))

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


def test_loss_falls_if_every_latent_is_the_same():
    changes = {"epochs": 30, "learning_rate": 1e-2, "batch_size": 8, "eval_interval": 30}
    setup = make_setup(make_criterion(prediction_type="sample"), **changes)
    constant = Side(torch.full((8, 4, 8, 8), 0.7))
    rows, _, _ = run(replace(setup, train=constant, val=constant))
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert rows[-1]["val_loss"] < 0.5 * rows[0]["loss"]  # the average lags behind


# --- the learning rate ---


def test_learning_rate_warms_up_linearly_and_falls_along_a_cosine_to_zero():
    factors = [learning_rate_factor(step, 3, 13) for step in range(14)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[8] == pytest.approx(0.5)  # halfway between 3 and 13
    assert all(later < earlier for earlier, later in pairwise(factors[3:]))
    for step, warmup, total in ((13, 3, 13), (99, 3, 13), (10, 0, 10)):
        assert learning_rate_factor(step, warmup, total) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_factor(0, 0, 10) == 1.0
    # a warm-up longer than the training never ends
    assert [learning_rate_factor(step, 10, 5) for step in range(5)] == pytest.approx(
        [(step + 1) / 11 for step in range(5)]
    )


@pytest.mark.parametrize(("samples", "count"), [(None, 9), (25, 21), (3, 3)])
def test_schedule_is_counted_in_optimizer_steps(samples, count, steps):
    setup = make_setup(rows=10, epochs=3, samples_per_epoch=samples, warmup_steps=2)
    rows, _, _ = run(setup)
    assert setup.total_steps == len(steps) == count
    rates = [rate for rate, _ in steps]
    assert rates == pytest.approx([1e-3 * learning_rate_factor(s, 2, count) for s in range(count)])
    assert [row["learning_rate"] for row in rows] == pytest.approx(rates[:: count // 3])


def test_warmup_that_takes_the_whole_training_is_refused_before_the_first_step(steps):
    """Where samples_per_epoch is null, only the training knows how many latents there are."""
    setup, denoiser = make_setup(rows=10, epochs=3, warmup_steps=9), build_denoiser(CONFIG, seed=0)
    message = refusal(train_diffusion, setup, denoiser, list, lambda *_: None)
    assert message.startswith("params.yaml: train_base: warmup_steps=9 leaves nothing of the ")
    assert message.endswith("training, which has 9 steps; use less, or more epochs")
    assert steps == []
    run(make_setup(rows=10, epochs=3, warmup_steps=8))
    assert len(steps) == 9


# --- the average of the weights ---


def test_average_starts_at_the_first_weights_and_then_decays_to_the_byte():
    """One step an epoch: ema_1 = w_1, then ema_k = d ema_(k-1) + (1 - d) w_k, d = 2/11, 3/12."""
    start = build_denoiser(CONFIG, seed=0)
    before = copy_weights(start)
    _, models, averages = run(make_setup(rows=4, epochs=3, learning_rate=1e-2), start)
    assert not equal(models[0], before)
    assert equal(averages[0], models[0])
    for epoch, decay in ((1, 2 / 11), (2, 3 / 12)):
        assert not equal(averages[epoch], models[epoch])
        for name, value in averages[epoch].items():
            expected = averages[epoch - 1][name].lerp(models[epoch][name], 1 - decay)
            assert torch.equal(value, expected)


def test_decays_of_the_average_are_those_of_diffusers_up_to_the_bound():
    theirs = EMAModel([torch.nn.Parameter(torch.zeros(1))], decay=0.99)
    ours = [average_decay(updates, 0.99) for updates in range(1, 2000)]
    assert ours == [theirs.get_decay(updates + 1) for updates in range(1, 2000)]
    assert ours[-1] == 0.99
    assert all(earlier <= later for earlier, later in pairwise(ours))


def test_average_of_a_short_training_follows_the_model_whatever_the_decay():
    """Fifteen steps. At a decay of 0.999 throughout, 99 % of it would be the first weights."""
    changes = {"epochs": 15, "learning_rate": 1e-2, "batch_size": 8, "eval_interval": 15}
    setup = make_setup(make_criterion(prediction_type="sample"), ema_decay=0.999, **changes)
    constant = Side(torch.full((8, 4, 8, 8), 0.7))
    setup = replace(setup, train=constant, val=constant)
    before = validate(setup, build_denoiser(CONFIG, seed=0), 0)["val_loss"]
    rows, models, _ = run(setup)
    model = build_denoiser(CONFIG, seed=0)
    model.load_state_dict(models[-1])
    gain = before - validate(setup, model, 15)["val_loss"]
    assert before - rows[-1]["val_loss"] > 0.5 * gain > 0


def test_decay_of_zero_makes_the_average_the_model_itself():
    _, models, averages = run(make_setup(epochs=3, ema_decay=0.0))
    assert all(equal(model, ema) for model, ema in zip(models, averages, strict=True))


def test_on_epoch_gets_the_model_that_is_trained_in_place_and_its_average():
    denoiser = build_denoiser(CONFIG, seed=0)
    given = []
    train_diffusion(make_setup(), denoiser, list, lambda _, *networks: given.append(networks))
    assert len(given) == 2
    for model, ema in given:
        assert model is denoiser
        assert isinstance(ema, Denoiser)
        assert ema is not denoiser
        assert ema.config == denoiser.config


# --- the history ---


@pytest.mark.parametrize(
    ("objective", "terms"),
    [
        ("none", ["noise_loss"]),
        ("seed", ["noise_loss", "discriminator_loss", "viability_score"]),
    ],
)
def test_row_has_the_loss_its_terms_and_the_gradient(objective, terms):
    rows, _, _ = run(make_setup(make_criterion(objective), epochs=1))
    train = ["epoch", "learning_rate", "loss", *terms, "grad_norm"]
    assert list(rows[0]) == [*train, "val_loss", *[f"val_{term}" for term in terms]]


@pytest.mark.parametrize(
    ("epochs", "interval", "expected"), [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 10, [3])]
)
def test_validation_runs_at_its_interval_and_in_the_last_epoch(epochs, interval, expected):
    rows, _, _ = run(make_setup(rows=4, epochs=epochs, eval_interval=interval))
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    assert [row["epoch"] for row in rows if "val_loss" in row] == expected
    assert all(("val_loss" in row) == ("val_noise_loss" in row) for row in rows)


def test_validation_measures_the_average_and_not_the_model():
    setup = make_setup(epochs=3, learning_rate=1e-2, ema_decay=0.99)
    measured = []

    def on_epoch(history, *networks):
        losses = [held_out(setup.criterion, n, setup.val.latents, 0, 4)["loss"] for n in networks]
        measured.append((history[-1]["val_loss"], *losses))

    train_diffusion(setup, build_denoiser(CONFIG, seed=0), list, on_epoch)
    reported, of_model, of_average = measured[-1]
    assert reported == of_average != of_model


def test_merge_makes_the_model_that_is_validated_and_handed_on_and_leaves_training_alone():
    """The merged model is the average with every weight doubled."""

    def double(average):
        merged = frozen_copy(average)
        for weights in merged.parameters():
            weights.mul_(2)
        return merged

    setup = make_setup(epochs=2)
    rows, models, averages = run(replace(setup, merge=double))
    _, plain_models, plain_averages = run(setup)
    model = build_denoiser(CONFIG, seed=0)
    for epoch in (0, 1):
        assert equal(models[epoch], plain_models[epoch])
        assert equal(averages[epoch], {k: 2 * v for k, v in plain_averages[epoch].items()})
        model.load_state_dict(averages[epoch])
        loss = held_out(setup.criterion, model, setup.val.latents, 0, 4)["loss"]
        assert rows[epoch]["val_loss"] == loss


def test_columns_are_means_over_the_steps_of_the_epoch():
    values = iter([1.0, 2.0, 6.0])

    def objective(batch):
        value = batch.output.sum() * 0
        if torch.is_grad_enabled():
            value = value + next(values)
        return value, {"noise_loss": value.detach()}

    rows, _, _ = run(make_setup(make_criterion(objective), rows=12, epochs=1))
    assert rows[0]["loss"] == rows[0]["noise_loss"] == pytest.approx(3.0)


# --- values that are not finite ---


def complaint(objective) -> tuple[str, list[float]]:
    """The line that training with four steps an epoch ends with, and the epochs before it."""
    epochs = []
    setup = make_setup(make_criterion(objective), rows=16, epochs=3)
    message = refusal(
        train_diffusion,
        setup,
        build_denoiser(CONFIG, seed=0),
        list,
        lambda history, *_: epochs.append(history[-1]["epoch"]),
    )
    return message, epochs


@pytest.mark.parametrize(
    ("term", "value"),
    [("noise_loss", math.nan), ("noise_loss", math.inf), ("discriminator_loss", math.nan)],
)
def test_non_finite_term_is_named_with_its_step_before_on_epoch_sees_its_epoch(term, value):
    count = 0

    def objective(batch):
        nonlocal count
        loss, terms = seed_objective(batch)
        count += torch.is_grad_enabled()
        if count == 4 + 3 and torch.is_grad_enabled():
            return loss + value, terms | {term: torch.tensor(value)}
        return loss, terms

    message, epochs = complaint(objective)
    assert message.startswith(f"train_base: {term} is {value} in epoch 2, step 3;")
    assert "learning_rate (0.001)" in message
    assert "objective.weight (0.1)" in message
    assert epochs == [1]


def test_non_finite_gradient_is_blamed_on_its_own_step():
    """Its loss is finite, and only the next step's loss would be nan."""
    count = 0

    def objective(batch):
        nonlocal count
        loss, terms = noise_only(batch)
        count += 1
        if count == 2:  # sqrt has an infinite slope at 0
            loss = loss + (0 * batch.output).sum().sqrt()
        return loss, terms

    assert "grad_norm is nan in epoch 1, step 2;" in complaint(objective)[0]


def test_non_finite_validation_loss_is_refused():
    setup = make_setup()
    setup.val.latents[0, 0, 0, 0] = math.nan
    message = refusal(validate, setup, build_denoiser(CONFIG, seed=0), 2)
    assert message.startswith("train_base: val_loss is nan in epoch 2;")


# --- the gradient ---


def test_clipping_bounds_the_gradient_and_the_row_has_its_norm_before(steps):
    rows, _, _ = run(make_setup(epochs=2, grad_clip=0.01))
    # clip_grad_norm_ divides by the norm + 1e-6; the rest is float32 rounding
    assert [norm for _, norm in steps] == pytest.approx([0.01] * 4, rel=1e-3)
    assert all(row["grad_norm"] > 0.1 for row in rows)


def test_wide_clip_leaves_the_gradient_as_it_is(steps):
    rows, _, _ = run(make_setup(rows=4, epochs=2, grad_clip=1e6))
    assert [norm for _, norm in steps] == pytest.approx([row["grad_norm"] for row in rows])


def test_seed_alone_decides_the_weights():
    def train(seed: int, global_seed: int):
        criterion = make_criterion("seed")
        torch.manual_seed(global_seed)  # the global stream must not matter
        return run(replace(make_setup(criterion, rows=10), seed=seed))

    first, again, other = train(0, 1), train(0, 2), train(1, 1)
    assert first[0] == again[0]
    assert equal(first[1][-1], again[1][-1])
    assert equal(first[2][-1], again[2][-1])
    assert not equal(first[1][-1], other[1][-1])


def dropped(setup: Setup) -> list[torch.Tensor]:
    """What a U-Net with dropout drops at each training step, in the first of its layers."""
    denoiser, seen = build_denoiser(CONFIG | {"dropout": 0.5}, seed=0), []
    layer = next(part for part in denoiser.modules() if getattr(part, "p", 0) == 0.5)

    def look(part, _inputs, output):
        if part.training:
            seen.append(output == 0)

    layer.register_forward_hook(look)
    run(setup, denoiser)
    return seen


def test_dropout_differs_between_steps_epochs_iterations_and_seeds_and_repeats_for_the_same():
    setup = make_setup(rows=8, epochs=2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = dropped(setup)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert all(map(torch.equal, dropped(setup), first))
    others = [dropped(replace(setup, **change)) for change in ({"seed": 1}, {"iteration": 1})]
    masks = [mask for training in (first, *others) for mask in training]
    assert len(masks) == 3 * 4
    assert not any(torch.equal(one, other) for one, other in combinations(masks, 2))


def test_training_leaves_the_discriminator_as_it_was():
    criterion = make_criterion("seed", weight=10.0)
    before = copy_weights(criterion.discriminator)
    run(make_setup(criterion, epochs=3))
    assert equal(before, copy_weights(criterion.discriminator))
