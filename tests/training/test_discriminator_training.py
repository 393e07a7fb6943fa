"""Training of the discriminator."""

from __future__ import annotations

import math

import pytest
import torch
from refusal import refusal
from small_diffusion import equal
from small_discriminator import MODEL, NOISE_CONDITIONED, PARAMS, PROCESS, fit, rebuild, side
from small_discriminator import make_setup as setup_of
from torch.optim.optimizer import register_optimizer_step_pre_hook

from advloop.core.random import generator
from advloop.models.discriminator import Discriminator
from advloop.training.discriminator import train_discriminator, validate
from advloop.training.discriminator_data import DiscData, renoise


@pytest.fixture(scope="module")
def separable():
    """A training on data that can be separated."""
    return fit(side(0, 60, shift=0.3), side(1, 60, shift=0.3))


def test_separable_data_are_separated_and_a_positive_logit_means_real(separable):
    last = separable.history[-1]
    assert last["val_accuracy"] > 0.9
    assert last["val_loss"] < 0.5
    assert last["val_viability"] < 0.3
    model, noise = rebuild(separable, separable.final), side(2, 1).latents[:1]
    with torch.no_grad():
        assert float(model(noise + 0.3)) > 0 > float(model(noise - 0.3))


def test_identical_distributions_stay_near_chance():
    result = fit(side(0, 60), side(1, 200), epochs=8)
    for row in result.history:
        # 400 independent guesses: standard error 0.025; allow four
        assert abs(row["val_accuracy"] - 0.5) < 0.1
    assert result.history[-1]["val_loss"] > 0.6  # log 2 = 0.693 is the best one can do
    gentle = fit(side(0, 60), side(1, 200), learning_rate=1e-3)
    assert abs(gentle.history[-1]["val_viability"] - 0.5) < 0.1


def accuracy_of(num_classes: int) -> float:
    """On reals that are bright in class 0 and dark in class 1, and fakes the other way round."""
    labels, real = torch.tensor([0, 0, 1, 1] * 32), torch.tensor([1.0, 0.0] * 64)
    bright = (real > 0.5) == (labels == 0)
    noise = 0.3 * torch.randn(128, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = noise + torch.where(bright, 1.0, -1.0).view(-1, 1, 1, 1)
    data = DiscData(latents, real, labels=labels if num_classes else None)
    model = MODEL.model_copy(update={"dropout": 0.0})
    result = fit(data, data, model, epochs=15, num_classes=num_classes)
    return validate(rebuild(result, result.final), data, 32).accuracy


def test_discriminator_with_labels_separates_what_no_other_can():
    assert accuracy_of(2) > 0.95
    assert accuracy_of(0) < 0.6


# --- checkpoints and the learning rate ---


def test_best_is_the_epoch_of_the_lowest_validation_loss_and_final_is_the_last():
    """Random labels and a high rate: the validation loss rises long before the last epoch."""
    val = side(1, 60)
    result = fit(side(0, 30), val, epochs=12, learning_rate=3e-2)
    losses = [row["val_loss"] for row in result.history]
    best, final = (
        validate(rebuild(result, weights), val, PARAMS.batch_size).loss
        for weights in (result.best, result.final)
    )
    assert best == min(losses)
    assert final == losses[-1] != best


def test_stagnating_validation_loss_lowers_the_learning_rate():
    """Patience 0: an epoch that is no better than the best by 1e-4 of it halves the rate."""
    used = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, _args, _kwargs: used.append(optimizer.param_groups[0]["lr"])
    )
    try:  # one batch an epoch
        result = fit(side(0, 8), side(1, 60), epochs=10, learning_rate=3e-2, plateau_patience=0)
    finally:
        handle.remove()
    rate, best, expected = 3e-2, math.inf, []
    for row in result.history:
        expected.append(rate)
        if row["val_loss"] < best * (1 - 1e-4):
            best = row["val_loss"]
        else:
            rate *= 0.5
    rates = [row["learning_rate"] for row in result.history]
    assert rates == used == pytest.approx(expected)
    assert rates[-1] < rates[0]


def test_falling_validation_loss_keeps_the_learning_rate():
    result = fit(side(0, 60, 0.1), side(1, 60, 0.1), learning_rate=1e-3, plateau_patience=0)
    losses = [row["val_loss"] for row in result.history]
    assert losses == sorted(losses, reverse=True)
    assert {row["learning_rate"] for row in result.history} == {1e-3}


# --- the history ---


def test_every_row_has_every_column(separable):
    columns = ["epoch", "learning_rate", "train_loss", "train_accuracy"]
    columns += ["val_loss", "val_accuracy", "val_viability"]
    assert all(list(row) == columns for row in separable.history)
    assert [row["epoch"] for row in separable.history] == [1, 2, 3, 4, 5]
    assert all(0 <= row["train_accuracy"] <= 1 for row in separable.history)


def test_validation_does_not_depend_on_the_batch_size_and_leaves_the_mode_alone():
    torch.manual_seed(0)
    model, data = Discriminator(4, [8], dropout=0.9).train(), side(0, 25, shift=0.2)
    whole, parts = validate(model, data, 50), validate(model, data, 7)
    assert parts == pytest.approx(whole, rel=1e-5)
    assert parts.accuracy == whole.accuracy
    assert model.training


def test_logit_above_zero_counts_as_real_and_viability_is_that_of_the_fakes():
    class Constant(torch.nn.Module):
        def pool(self, latents: torch.Tensor) -> torch.Tensor:
            return latents[:, 0, 0, 0]

        def classify(self, pooled: torch.Tensor, _: None) -> torch.Tensor:
            return pooled

    latents = torch.tensor([2.0, -1.0, 3.0, -4.0]).view(4, 1, 1, 1)
    validated = validate(Constant(), DiscData(latents, torch.tensor([1.0, 1.0, 0.0, 0.0])), 3)
    softplus = [math.log1p(math.exp(value)) for value in (-2.0, 1.0, 3.0, -4.0)]
    assert validated.loss == pytest.approx(sum(softplus) / 4, rel=1e-6)
    assert validated.accuracy == 0.5
    sigmoids = [1 / (1 + math.exp(-value)) for value in (3.0, -4.0)]
    assert validated.viability == pytest.approx(sum(sigmoids) / 2, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("side_name", ["train", "val"])
def test_non_finite_loss_is_refused_before_on_epoch_sees_the_epoch(value, side_name):
    sides = {"train": side(0, 30), "val": side(1, 30)}
    sides[side_name].latents[3, 0, 0, 0] = value
    rows: list[list[dict[str, float]]] = []
    message = refusal(train_discriminator, setup_of(**sides), iter, rows.append)
    assert message.startswith("train_disc: ")
    assert f"{side_name}_loss=nan" in message
    assert "in epoch 1; lower train_disc.learning_rate=0.01" in message
    assert not rows


# --- random streams ---


def test_training_repeats_by_seed_and_iteration_and_leaves_the_global_stream_alone():
    def train(global_seed: int, **key: int):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        result = fit(side(0, 30), side(1, 30), r1_weight=1.0, epochs=2, **key)
        assert torch.equal(torch.get_rng_state(), before)
        return result

    first, again = train(1), train(2)
    assert first.history == again.history
    assert equal(first.best, again.best)
    assert equal(first.final, again.final)
    assert not equal(first.final, train(1, iteration=1).final)
    assert not equal(first.final, train(1, seed=1).final)


# --- R1 ---


def gradient_norm(result, latents: torch.Tensor) -> float:
    """Mean |gradient of D|^2 at ``latents`` after the last epoch."""
    latents = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(rebuild(result, result.final)(latents).sum(), latents)
    return float(gradient.square().sum((1, 2, 3)).mean())


def test_penalty_flattens_the_discriminator_at_the_reals_and_is_not_in_the_loss(separable):
    train, val = side(0, 60, shift=0.3), side(1, 60, shift=0.3)
    penalised = fit(train, val, r1_weight=10.0)
    reals = val.latents[val.real > 0.5]
    assert gradient_norm(penalised, reals) < 0.2 * gradient_norm(separable, reals)
    # BCE of a flat D is log 2; the penalty itself (10 times a squared gradient) is not added
    assert max(row["train_loss"] for row in penalised.history) < 1.0
    other_step = fit(train, val, r1_sigma=0.7)  # of a penalty of weight zero
    assert other_step.history == separable.history
    assert equal(other_step.final, separable.final)


def test_batch_without_reals_is_trained_without_a_penalty():
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    fakes = DiscData(latents, torch.zeros(3))
    result = fit(fakes, side(1, 10), epochs=1, r1_weight=1.0)
    assert math.isfinite(result.history[0]["train_loss"])
    assert equal(result.final, fit(fakes, side(1, 10), epochs=1).final)


# --- stopping ---


def test_training_stops_after_the_first_epoch_that_reaches_the_accuracy():
    train, val = side(0, 60, shift=0.1), side(1, 60, shift=0.1)
    whole = fit(train, val, epochs=8, learning_rate=3e-3)
    accuracies = [row["val_accuracy"] for row in whole.history]
    first = 1 + next(i for i, accuracy in enumerate(accuracies) if accuracy >= 0.6)
    assert 1 < first < 8  # otherwise this shows nothing
    for limit in (0.6, accuracies[first - 1]):  # reached exactly, too
        stopped = fit(train, val, epochs=8, learning_rate=3e-3, stop_accuracy=limit)
        assert stopped.history == whole.history[:first]
        assert not equal(stopped.final, whole.final)
    never = fit(train, val, epochs=8, learning_rate=3e-3, stop_accuracy=1.0)
    assert never.history == whole.history
    assert equal(never.final, whole.final)


# --- noise conditioning ---


def test_noise_conditioned_discriminator_separates_renoised_latents():
    train, val = side(0, 60, shift=0.3), side(1, 60, shift=0.3)
    result = fit(train, val, NOISE_CONDITIONED, epochs=8)
    assert result.config["noise_conditioned"] is True
    assert result.history[-1]["val_accuracy"] > 0.8
    penalised = fit(train, val, NOISE_CONDITIONED, epochs=1, r1_weight=1.0)
    assert penalised.history[0]["val_loss"] != result.history[0]["val_loss"]


def test_noise_conditioned_discriminator_sees_only_renoised_latents_and_their_timesteps(
    monkeypatch,
):
    seen: list[tuple[bool, torch.Tensor, torch.Tensor]] = []
    pool = Discriminator.pool

    def noting(self, latents, timesteps=None):
        seen.append((self.training, latents, timesteps))
        return pool(self, latents, timesteps)

    monkeypatch.setattr(Discriminator, "pool", noting)
    train, val = side(0, 40, shift=0.3), side(1, 40, shift=0.3)
    fit(train, val, NOISE_CONDITIONED, epochs=3, batch_size=80)
    limit = PROCESS.timestep_limit(PARAMS.renoise_min_alpha_bar, "key")
    clean = {tuple(latent.flatten().tolist()) for data in (train, val) for latent in data.latents}
    for _, latents, timesteps in seen:
        assert sorted((timesteps * 80 // limit).tolist()) == pytest.approx(range(80), abs=1)
        assert not {tuple(latent.flatten().tolist()) for latent in latents} & clean
    trained = [call for call in seen if call[0]]
    assert len({tuple(timesteps.tolist()) for _, _, timesteps in trained}) == 3
    judged = [call for call in seen if not call[0]]
    fixed = renoise(val, PROCESS, limit, generator(0, "train_disc", "validation", "renoise"))
    assert all(torch.equal(latents, fixed.latents) for _, latents, _ in judged)
    assert all(torch.equal(timesteps, fixed.timesteps) for _, _, timesteps in judged)


def test_training_noise_follows_the_iteration_and_validation_noise_does_not(monkeypatch):
    calls: list[bytes] = []

    def noting(data, process, limit, stream):
        calls.append(stream.get_state().numpy().tobytes())
        return renoise(data, process, limit, stream)

    monkeypatch.setattr("advloop.training.discriminator.renoise", noting)
    for iteration in (0, 1):
        fit(side(0, 10), side(1, 10), NOISE_CONDITIONED, iteration=iteration, epochs=2)
    first, second = calls[:3], calls[3:]  # validation, then each epoch
    assert first[0] == second[0]
    assert len(set(calls)) == 5


def test_alpha_bar_that_no_timestep_reaches_is_refused_only_if_it_is_used():
    sides = {"train": side(0, 10), "val": side(1, 10)}
    changes = {"epochs": 1, "renoise_min_alpha_bar": 0.99999}
    fit(**sides, **changes)
    setup = setup_of(**sides, model=NOISE_CONDITIONED, **changes)
    message = refusal(train_discriminator, setup, iter, lambda _: None)
    assert message.startswith("train_disc.renoise_min_alpha_bar=0.99999: ")


# --- precision ---


def test_training_in_bf16_learns_what_fp32_does_within_three_percent(separable):
    quick = fit(side(0, 60, shift=0.3), side(1, 60, shift=0.3), precision="bf16")
    for ours, theirs in zip(quick.history, separable.history, strict=True):
        # of the loss at the start, log 2: once both have learnt, nothing is left to compare
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=0.03 * math.log(2))
        assert ours["train_loss"] != theirs["train_loss"]
    assert quick.history[-1]["val_accuracy"] > 0.9
    for weight in quick.best.values():
        assert weight.dtype == torch.float32
        assert weight.is_contiguous()


def test_penalty_is_computed_in_float32_whatever_the_precision(monkeypatch):
    """Its difference of two logits is smaller than what bfloat16 rounds away."""
    seen = []
    pool = Discriminator.pool

    def look(self, *args):
        pooled = pool(self, *args)
        seen.append((self.training, pooled.dtype))
        return pooled

    monkeypatch.setattr(Discriminator, "pool", look)
    fit(side(0, 8), side(1, 8), epochs=1, r1_weight=1.0, precision="bf16")
    assert (True, torch.bfloat16) in seen  # the loss
    assert (False, torch.float32) in seen  # the penalty, without dropout
