"""The training loop: what it does in every step, and what it reports of every epoch."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_unet import CONFIG
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from advloop.core.errors import UserError
from advloop.criterion import Criterion
from advloop.diffusion_training import (
    Setup,
    epoch_rows,
    learning_rate_factor,
    train_diffusion,
)
from advloop.discriminator import Discriminator
from advloop.objectives.none import noise_only
from advloop.objectives.registry import OBJECTIVES
from advloop.objectives.seed import seed_objective
from advloop.params.diffusion import BaseParams, DiffusionParams
from advloop.unet import Denoiser, build_unet

PARAMS = BaseParams(
    pretrained=None,
    epochs=2,
    samples_per_epoch=None,
    batch_size=4,
    learning_rate=1e-3,
    warmup_steps=0,
    ema_decay=0.9,
    grad_clip=1.0,
    eval_interval=1,
)


def make_criterion(objective="none", weight=0.1, prediction_type="v_prediction") -> Criterion:
    """``objective``: a name, or a function of a batch."""
    torch.manual_seed(0)
    return Criterion(
        objective=OBJECTIVES[objective].make(None) if isinstance(objective, str) else objective,
        weight=weight,
        discriminator=Discriminator(4, [8], dropout=0.0).requires_grad_(False).eval(),
        diffusion=DiffusionParams(1000, "squaredcos_cap_v2", prediction_type),
        precision="fp32",
        where=torch.device("cpu"),
    )


def make_setup(criterion: Criterion | None = None, rows: int = 8, **changes) -> Setup:
    stream = torch.Generator().manual_seed(0)
    return Setup(
        params=replace(PARAMS, **changes),
        criterion=criterion or make_criterion(),
        train=torch.randn(rows, 4, 8, 8, generator=stream),
        val=torch.randn(4, 4, 8, 8, generator=stream),
        seed=0,
        stage="train_base",
        iteration=0,
    )


def copy_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def run(setup: Setup, denoiser: Denoiser | None = None):
    """(rows, weights of the model, weights of the ema), one entry an epoch."""
    rows, models, averages = [], [], []

    def on_epoch(history, model, ema):
        rows.append(dict(history[-1]))
        models.append(copy_weights(model))
        averages.append(copy_weights(ema))

    train_diffusion(setup, denoiser or build_unet(CONFIG, seed=0), lambda items: items, on_epoch)
    return rows, models, averages


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def steps():
    """What every optimizer step saw: (learning rate, global norm of the gradient)."""
    seen: list[tuple[float, float]] = []

    def look(optimizer, _args, _kwargs):
        group = optimizer.param_groups[0]
        norms = [parameter.grad.norm() for parameter in group["params"]]
        seen.append((float(group["lr"]), float(torch.stack(norms).norm())))

    handle = register_optimizer_step_pre_hook(look)
    yield seen
    handle.remove()


@pytest.fixture
def trained_on(monkeypatch):
    """(latents, noise, timesteps) of every batch that the criterion saw in training."""
    seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
    call = Criterion.__call__

    def spy(self, model, x0, eps, timesteps, labels=None, **more):
        if torch.is_grad_enabled():
            seen.append((x0, eps, timesteps))
        return call(self, model, x0, eps, timesteps, labels, **more)

    monkeypatch.setattr(Criterion, "__call__", spy)
    return seen


def test_loss_falls_where_every_latent_is_the_same():
    setup = make_setup(
        make_criterion(prediction_type="sample"),
        epochs=30,
        learning_rate=1e-2,
        batch_size=8,
        eval_interval=30,
    )
    constant = torch.full((8, 4, 8, 8), 0.7)
    rows, _, _ = run(replace(setup, train=constant, val=constant))
    assert rows[-1]["loss"] < 0.2 * rows[0]["loss"]
    assert rows[-1]["val_loss"] < 0.5 * rows[0]["loss"]  # the EMA lags behind


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (None, [1] * 10),  # every row once
        (10, [1] * 10),
        (4, [0] * 6 + [1] * 4),  # cut: no row twice
        (25, [2] * 5 + [3] * 5),  # repeated: no row a third time before all came twice
    ],
)
def test_epoch_rows_are_a_permutation_cut_or_repeated(samples, expected):
    setup = make_setup(rows=10, samples_per_epoch=samples)
    rows = epoch_rows(setup, 1, len(setup.train))
    assert sorted(torch.bincount(rows, minlength=10).tolist()) == expected


def test_epoch_rows_are_shuffled_afresh_by_epoch_iteration_stage_and_seed():
    setup = make_setup(rows=50)
    first = epoch_rows(setup, 1, len(setup.train))
    assert torch.equal(epoch_rows(setup, 1, len(setup.train)), first)
    assert not torch.equal(first, torch.arange(50))
    others = [
        epoch_rows(setup, 2, 50),
        epoch_rows(replace(setup, iteration=1), 1, 50),
        epoch_rows(replace(setup, stage="train_diffusion"), 1, 50),
        epoch_rows(replace(setup, seed=1), 1, 50),
        epoch_rows(setup, 1, 50, "fake"),
    ]
    assert not any(torch.equal(first, other) for other in others)


def test_every_training_row_is_seen_once_an_epoch_and_the_last_batch_may_be_smaller(trained_on):
    setup = make_setup(rows=10, epochs=1)
    run(setup)
    assert [len(x0) for x0, _, _ in trained_on] == [4, 4, 2]
    shown = torch.cat([x0 for x0, _, _ in trained_on]).flatten(1)
    found = [(shown == row).all(1).sum().item() for row in setup.train.flatten(1)]
    assert found == [1] * 10


def test_timesteps_of_a_batch_cover_the_process_in_no_order(trained_on):
    run(make_setup(rows=100, epochs=1, batch_size=100))
    ((_, _, timesteps),) = trained_on
    assert (timesteps.sort().values // 10).tolist() == list(range(100))  # one from each stratum
    pairs = torch.stack([timesteps.double(), timesteps.roll(1).double()])
    # standard error 0.1 without an order; ascending ones give 0.94
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.4


def test_training_draws_other_noise_and_timesteps_in_every_epoch(trained_on):
    run(make_setup(rows=64, epochs=2, batch_size=32, eval_interval=2))
    assert len({tuple(timesteps.tolist()) for _, _, timesteps in trained_on}) == 4
    assert len({float(eps[0, 0, 0, 0]) for _, eps, _ in trained_on}) == 4
    drawn = torch.cat([timesteps for _, _, timesteps in trained_on]).double()
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 999
    # 128 uniform draws from [0, 999]: the mean has standard error 288.7 / sqrt(128) = 25.5
    assert abs(float(drawn.mean()) - 499.5) < 4 * 25.5


def test_the_learning_rate_warms_up_linearly_and_falls_along_a_cosine_to_zero():
    factors = [learning_rate_factor(step, 3, 13) for step in range(14)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[8] == pytest.approx(0.5)  # half way between 3 and 13
    assert all(later < earlier for earlier, later in pairwise(factors[3:]))
    assert factors[13] == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_factor(99, 3, 13) == pytest.approx(0.0, abs=1e-12)


def test_the_learning_rate_starts_at_its_full_value_without_warm_up():
    assert learning_rate_factor(0, 0, 10) == 1.0
    assert learning_rate_factor(10, 0, 10) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("total", [1, 5])
def test_a_warm_up_longer_than_the_training_never_exceeds_the_full_rate(total):
    factors = [learning_rate_factor(step, 10, total) for step in range(total)]
    assert factors == pytest.approx([(step + 1) / 11 for step in range(total)])


def test_the_learning_rate_schedule_is_counted_in_optimizer_steps(steps):
    setup = make_setup(rows=10, epochs=3, warmup_steps=2, batch_size=4, learning_rate=1e-3)
    assert setup.total_steps == 9  # 3 epochs of ceil(10 / 4) steps
    rows, _, _ = run(setup)
    rates = [rate for rate, _ in steps]
    assert rates == pytest.approx([1e-3 * learning_rate_factor(s, 2, 9) for s in range(9)])
    assert [row["learning_rate"] for row in rows] == pytest.approx([rates[0], rates[3], rates[6]])


@pytest.mark.parametrize(("samples", "expected"), [(None, 6), (25, 14), (3, 2)])
def test_the_length_of_the_schedule_follows_samples_per_epoch(samples, expected, steps):
    setup = make_setup(rows=10, epochs=2, samples_per_epoch=samples)
    assert setup.total_steps == expected
    run(setup)
    assert len(steps) == expected


def test_on_epoch_gets_the_average_of_the_weights_that_the_decay_prescribes():
    """One step an epoch: ema_1 = w_1, then ema_k = 0.9 ema_(k-1) + 0.1 w_k."""
    start = build_unet(CONFIG, seed=0)
    before = copy_weights(start)
    _, models, averages = run(make_setup(rows=4, epochs=3, learning_rate=1e-2), start)
    expected = {name: value.double() for name, value in models[0].items()}
    assert any(not torch.equal(models[0][name], before[name]) for name in before)
    for epoch in range(3):
        if epoch:
            new = models[epoch]
            expected = {k: 0.9 * v + 0.1 * new[k].double() for k, v in expected.items()}
            assert not equal(averages[epoch], new)
        for name, value in expected.items():
            torch.testing.assert_close(averages[epoch][name].double(), value, rtol=0, atol=1e-6)


def test_a_decay_of_zero_makes_the_average_the_model_itself():
    _, models, averages = run(make_setup(epochs=3, ema_decay=0.0))
    assert all(equal(model, ema) for model, ema in zip(models, averages, strict=True))


def test_the_model_is_trained_in_place_and_the_average_is_apart_from_it():
    denoiser = build_unet(CONFIG, seed=0)
    handed = []
    train_diffusion(
        make_setup(),
        denoiser,
        lambda items: items,
        lambda _row, model, ema: handed.append((model, ema)),
    )
    assert all(model is denoiser for model, _ in handed)
    assert all(isinstance(ema, Denoiser) and ema is not denoiser for _, ema in handed)
    assert handed[0][1].config == denoiser.config


@pytest.mark.parametrize(
    ("epochs", "interval", "expected"),
    [(5, 2, [2, 4, 5]), (4, 2, [2, 4]), (3, 10, [3]), (3, 1, [1, 2, 3])],
)
def test_validation_runs_at_its_interval_and_at_the_last_epoch(epochs, interval, expected):
    rows, _, _ = run(make_setup(rows=4, epochs=epochs, eval_interval=interval))
    assert [row["epoch"] for row in rows] == list(range(1, epochs + 1))
    train = ["epoch", "learning_rate", "loss", "noise_loss", "discriminator_loss"]
    train += ["viability_score", "grad_norm"]
    val = ["val_loss", "val_noise_loss", "val_discriminator_loss", "val_viability_score"]
    for row in rows:
        assert list(row) == (train + val if row["epoch"] in expected else train)


def test_the_validation_columns_measure_the_average_and_not_the_model():
    from advloop.criterion import held_out

    setup = make_setup(epochs=3, learning_rate=1e-2, ema_decay=0.99)
    measured = []

    def on_epoch(history, model, ema):
        values = [held_out(setup.criterion, net, setup.val, 0, 4)["loss"] for net in (model, ema)]
        measured.append((history[-1]["val_loss"], *values))

    train_diffusion(setup, build_unet(CONFIG, seed=0), lambda items: items, on_epoch)
    reported, of_model, of_ema = measured[-1]
    assert reported == of_ema
    assert reported != of_model


def test_the_loss_column_is_the_mean_over_the_steps_of_the_epoch():
    values = iter([1.0, 2.0, 6.0])

    def objective(batch):
        value = batch.output.sum() * 0
        if torch.is_grad_enabled():
            value = value + next(values)
        return value, {"noise_loss": value.detach()}

    rows, _, _ = run(make_setup(make_criterion(objective), rows=12, epochs=1))
    assert rows[0]["loss"] == pytest.approx(3.0)
    assert rows[0]["noise_loss"] == pytest.approx(3.0)


def broken_at(epoch: int, step: int, steps_per_epoch: int, term: str, value: float):
    """The seed objective, but ``term`` is ``value`` in one training step, and the loss with it."""
    count = 0

    def objective(batch):
        nonlocal count
        loss, terms = seed_objective(batch)
        if torch.is_grad_enabled():
            count += 1
            if count == (epoch - 1) * steps_per_epoch + step:
                terms = terms | {term: torch.tensor(value)}
                loss = loss + value
        return loss, terms

    return objective


def complaint(setup: Setup) -> tuple[str, list[float]]:
    """The one line of the UserError that training raises, and the epochs seen before it."""
    epochs = []
    with pytest.raises(UserError) as caught:
        train_diffusion(
            setup,
            build_unet(CONFIG, seed=0),
            lambda items: items,
            lambda history, _model, _ema: epochs.append(history[-1]["epoch"]),
        )
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value), epochs


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_is_reported_before_on_epoch_sees_its_epoch(value):
    objective = broken_at(epoch=2, step=3, steps_per_epoch=4, term="noise_loss", value=value)
    message, epochs = complaint(make_setup(make_criterion(objective), rows=16, epochs=3))
    assert epochs == [1]
    assert message.startswith("train_base: ")
    assert f"loss is {value} in epoch 2, step 3;" in message
    assert "learning_rate" in message
    assert "0.001" in message


@pytest.mark.parametrize("term", ["noise_loss", "discriminator_loss"])
def test_a_non_finite_term_is_named_itself_and_not_only_the_sum_that_it_spoils(term):
    objective = broken_at(epoch=1, step=2, steps_per_epoch=4, term=term, value=math.nan)
    message, _ = complaint(make_setup(make_criterion(objective), rows=16))
    assert f"train_base: {term} is nan in epoch 1, step 2;" in message


def test_a_gradient_that_is_not_finite_is_blamed_on_the_step_it_came_from():
    """Its loss is finite: only the step after it shows a loss of nan."""
    count = 0

    def objective(batch):
        nonlocal count
        loss, terms = noise_only(batch)
        if torch.is_grad_enabled():
            count += 1
            if count == 2:  # sqrt has an infinite slope at 0
                loss = loss + (0 * batch.output).sum().sqrt()
        return loss, terms

    message, _ = complaint(make_setup(make_criterion(objective), rows=16))
    assert "grad_norm is nan in epoch 1, step 2;" in message


def test_a_non_finite_validation_loss_is_refused_before_on_epoch_sees_its_epoch():
    setup = make_setup(epochs=4, eval_interval=2)
    setup.val[0, 0, 0, 0] = math.nan
    message, epochs = complaint(setup)
    assert epochs == [1]
    assert message.startswith("train_base: val_loss is nan in epoch 2;")


def test_clipping_bounds_the_gradient_of_every_step(steps):
    rows, _, _ = run(make_setup(epochs=2, grad_clip=0.01))
    assert len(steps) == 4
    for _, norm in steps:
        # clip_grad_norm_ divides by the norm + 1e-6; the rest is float32 rounding
        assert norm == pytest.approx(0.01, rel=1e-3)
    assert all(row["grad_norm"] > 0.1 for row in rows)  # reported as it was before clipping


def test_a_wide_clip_leaves_the_gradient_as_it_is(steps):
    rows, _, _ = run(make_setup(rows=4, epochs=2, grad_clip=1e6))
    assert [norm for _, norm in steps] == pytest.approx([row["grad_norm"] for row in rows])


def test_the_same_seed_trains_to_the_same_weights_twice():
    first, second = (run(make_setup(make_criterion("seed"), rows=10)) for _ in range(2))
    assert first[0] == second[0]
    assert equal(first[1][-1], second[1][-1])
    assert equal(first[2][-1], second[2][-1])


def test_another_seed_trains_to_other_weights():
    setup = make_setup(rows=10)
    assert not equal(run(setup)[1][-1], run(replace(setup, seed=1))[1][-1])


def test_training_does_not_depend_on_the_global_random_state():
    torch.manual_seed(1)
    first = run(make_setup())[1][-1]
    torch.manual_seed(2)
    assert equal(run(make_setup())[1][-1], first)


def test_the_discriminator_is_unchanged_by_training_against_it():
    criterion = make_criterion("seed", weight=10.0)
    before = copy_weights(criterion.discriminator)
    run(make_setup(criterion, epochs=3))
    assert equal(before, copy_weights(criterion.discriminator))
