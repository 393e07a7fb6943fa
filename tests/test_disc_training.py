"""The discriminator's training."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from advloop.core.errors import UserError
from advloop.core.runtime import generator
from advloop.disc.data import DiscData, renoise
from advloop.disc.training import judge, train_discriminator
from advloop.discriminator import Discriminator
from advloop.params.discriminator import DiscriminatorParams, TrainDiscParams
from advloop.schedule import clear_timesteps, make_alphas_cumprod

MODEL = DiscriminatorParams(noise_conditioned=False, channels=[8], dropout=0.2)
PARAMS = TrainDiscParams(
    epochs=5,
    batch_size=16,
    learning_rate=1e-2,
    weight_decay=0.01,
    plateau_factor=0.5,
    plateau_patience=100,
    predicted_fraction=0.0,
    replay_fraction=0.0,
    r1_weight=0.0,
    r1_sigma=0.1,
    stop_accuracy=None,
    renoise_min_alpha_bar=0.5,
)
ALPHAS = make_alphas_cumprod("squaredcos_cap_v2", 1000)
COLUMNS = [
    "epoch",
    "learning_rate",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "val_viability",
]


def side(seed: int, rows: int, shift: float = 0.0) -> DiscData:
    """``rows`` reals of mean ``shift`` and as many fakes of mean -``shift``, both of variance 1."""
    stream = torch.Generator().manual_seed(seed)
    latents = torch.randn(2 * rows, 4, 8, 8, generator=stream)
    real = torch.cat([torch.ones(rows), torch.zeros(rows)])
    return DiscData(latents + shift * (2 * real - 1).view(-1, 1, 1, 1), real)


def fit(
    train: DiscData,
    val: DiscData,
    seed: int = 0,
    iteration: int = 0,
    model=MODEL,
    precision: str = "fp32",
    **changes,
):
    rows: list[dict[str, float]] = []
    params = replace(PARAMS, **changes)

    def on_epoch(history: list[dict[str, float]]) -> None:
        rows.append(history[-1])

    result = train_discriminator(
        params, model, train, val, ALPHAS, seed, iteration, on_epoch, precision=precision
    )
    assert rows == result.history
    return result


def rebuild(result, weights: dict[str, torch.Tensor]) -> Discriminator:
    model = Discriminator(**result.config)
    model.load_state_dict(weights)
    return model


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
    best = judge(rebuild(result, result.best), val, PARAMS.batch_size).loss
    final = judge(rebuild(result, result.final), val, PARAMS.batch_size).loss
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
        assert 0 < row["val_viability"] < 1


def test_judging_does_not_depend_on_the_batch_size_and_leaves_the_mode_alone():
    torch.manual_seed(0)
    model, data = Discriminator(4, [8], dropout=0.9).train(), side(0, 25, shift=0.2)
    whole, parts = judge(model, data, 50), judge(model, data, 7)
    assert parts == pytest.approx(whole, rel=1e-5)
    assert parts.accuracy == whole.accuracy
    assert model.training


def test_judging_counts_a_logit_above_zero_as_real_and_takes_viability_from_fakes_alone():
    class Constant(torch.nn.Module):
        def pool(self, latents: torch.Tensor) -> torch.Tensor:
            return latents[:, 0, 0, 0]

        def classify(self, pooled: torch.Tensor, _: None) -> torch.Tensor:
            return pooled

    latents = torch.tensor([2.0, -1.0, 3.0, -4.0]).view(4, 1, 1, 1)
    judged = judge(Constant(), DiscData(latents, torch.tensor([1.0, 1.0, 0.0, 0.0])), 3)
    softplus = [math.log1p(math.exp(value)) for value in (-2.0, 1.0, 3.0, -4.0)]
    assert judged.loss == pytest.approx(sum(softplus) / 4, rel=1e-6)
    assert judged.accuracy == 0.5
    sigmoids = [1 / (1 + math.exp(-value)) for value in (3.0, -4.0)]
    assert judged.viability == pytest.approx(sum(sigmoids) / 2, rel=1e-6)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["train", "val"])
def test_data_that_is_not_finite_is_refused_before_on_epoch_sees_the_epoch(value, where):
    sides = {"train": side(0, 30), "val": side(1, 30)}
    sides[where].latents[3, 0, 0, 0] = value
    rows: list[list[dict[str, float]]] = []
    with pytest.raises(UserError) as caught:
        train_discriminator(PARAMS, MODEL, sides["train"], sides["val"], ALPHAS, 0, 0, rows.append)
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


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# --- viability ---


def test_viability_is_low_where_fakes_are_told_apart_and_a_half_where_nothing_is():
    apart = fit(side(0, 60, shift=0.3), side(1, 60, shift=0.3))
    assert apart.history[-1]["val_viability"] < 0.3
    alike = fit(side(0, 60), side(1, 200), learning_rate=1e-3)
    assert abs(alike.history[-1]["val_viability"] - 0.5) < 0.1


# --- R1 ---


def test_a_penalty_of_weight_zero_trains_to_the_same_bytes_whatever_its_step():
    first, second = (fit(side(0, 30), side(1, 30), r1_sigma=sigma) for sigma in (0.1, 0.7))
    assert first.history == second.history
    assert same(first.final, second.final)


def gradient_norm(result, latents: torch.Tensor) -> float:
    """Mean |gradient of D|^2 over ``latents`` of the last epoch's discriminator."""
    model = rebuild(result, result.final).eval()
    latents = latents.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(latents).sum(), latents)
    return float(gradient.square().sum((1, 2, 3)).mean())


def test_a_penalty_flattens_the_discriminator_at_the_reals_and_is_not_in_the_reported_loss():
    train, val = side(0, 60, shift=0.3), side(1, 60, shift=0.3)
    free, held = (fit(train, val, r1_weight=weight) for weight in (0.0, 10.0))
    reals = val.latents[val.real > 0.5]
    assert gradient_norm(held, reals) < 0.2 * gradient_norm(free, reals)
    # BCE of a flat D is log 2; the penalty itself (10 times a squared gradient) is not added
    assert max(row["train_loss"] for row in held.history) < 1.0


def test_a_penalised_training_repeats_and_depends_on_the_seed_of_its_noise():
    first, second = (fit(side(0, 30), side(1, 30), r1_weight=1.0) for _ in range(2))
    assert same(first.final, second.final)
    assert not same(first.final, fit(side(0, 30), side(1, 30)).final)


def test_a_batch_without_reals_is_trained_without_a_penalty():
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    fakes = DiscData(latents, torch.zeros(3))
    result = fit(fakes, side(1, 10), epochs=1, r1_weight=1.0)
    assert math.isfinite(result.history[0]["train_loss"])
    assert same(result.final, fit(fakes, side(1, 10), epochs=1).final)


# --- stopping ---


def test_training_stops_after_the_first_epoch_that_reaches_the_accuracy():
    train, val = side(0, 60, shift=0.1), side(1, 60, shift=0.1)
    whole = fit(train, val, epochs=8, learning_rate=3e-3)
    accuracies = [row["val_accuracy"] for row in whole.history]
    limit = 0.6
    first = 1 + next(i for i, accuracy in enumerate(accuracies) if accuracy >= limit)
    assert 1 < first < 8  # otherwise this shows nothing
    stopped = fit(train, val, epochs=8, learning_rate=3e-3, stop_accuracy=limit)
    assert stopped.history == whole.history[:first]
    losses = [row["val_loss"] for row in stopped.history]
    assert stopped.best_epoch == 1 + losses.index(min(losses))
    assert not same(stopped.final, whole.final)


def test_an_accuracy_that_is_just_reached_stops():
    train, val = side(0, 60, shift=0.1), side(1, 60, shift=0.1)
    exactly = fit(train, val, epochs=3, learning_rate=3e-3).history[1]["val_accuracy"]
    stopped = fit(train, val, epochs=3, learning_rate=3e-3, stop_accuracy=exactly)
    assert stopped.history[-1]["val_accuracy"] >= exactly
    assert len(stopped.history) <= 2


def test_an_accuracy_that_is_never_reached_runs_every_epoch_to_the_same_bytes():
    whole, limited = (fit(side(0, 30), side(1, 60), stop_accuracy=s) for s in (None, 1.0))
    assert limited.history == whole.history
    assert same(limited.final, whole.final)


# --- noise conditioning ---

TOLD = DiscriminatorParams(noise_conditioned=True, channels=[8], dropout=0.2)


def test_a_noise_conditioned_discriminator_learns_to_tell_renoised_latents_apart():
    train, val = side(0, 60, shift=0.3), side(1, 60, shift=0.3)
    result = fit(train, val, model=TOLD, epochs=8)
    assert result.config["noise_conditioned"] is True
    assert result.history[-1]["val_accuracy"] > 0.8


def test_a_noise_conditioned_discriminator_sees_renoised_latents_alone_and_how_noisy_they_are(
    monkeypatch,
):
    seen: list[tuple[bool, torch.Tensor, torch.Tensor]] = []
    pool = Discriminator.pool

    def noting(self, latents, timesteps=None):
        seen.append((self.training, latents, timesteps))
        return pool(self, latents, timesteps)

    monkeypatch.setattr(Discriminator, "pool", noting)
    train, val = side(0, 40, shift=0.3), side(1, 40, shift=0.3)
    fit(train, val, model=TOLD, epochs=3, batch_size=80)
    limit = clear_timesteps(ALPHAS, PARAMS.renoise_min_alpha_bar, "key")
    both = torch.cat([train.latents, val.latents])
    clean = {tuple(latent.flatten().tolist()) for latent in both}
    for _, latents, timesteps in seen:
        assert sorted((timesteps * 80 // limit).tolist()) == pytest.approx(range(80), abs=1)
        shown = {tuple(latent.flatten().tolist()) for latent in latents}
        assert not shown & clean
    trained = [call for call in seen if call[0]]
    assert len({tuple(timesteps.tolist()) for _, _, timesteps in trained}) == 3
    judged = [call for call in seen if not call[0]]
    assert all(torch.equal(latents, judged[0][1]) for _, latents, _ in judged)
    assert all(torch.equal(timesteps, judged[0][2]) for _, _, timesteps in judged)
    fixed = renoise(val, ALPHAS, limit, generator(0, "train_disc", "validation", "renoise"))
    assert torch.equal(judged[0][1], fixed.latents)


def test_validation_noise_is_the_same_in_every_iteration_and_training_noise_is_not(monkeypatch):
    calls: list[str] = []

    def noting(data, alphas_cumprod, limit, stream):
        calls.append(stream.get_state().numpy().tobytes())
        return renoise(data, alphas_cumprod, limit, stream)

    monkeypatch.setattr("advloop.disc.training.renoise", noting)
    for iteration in (0, 1):
        fit(side(0, 10), side(1, 10), iteration=iteration, model=TOLD, epochs=2)
    first, second = calls[:3], calls[3:]  # validation, then each epoch
    assert first[0] == second[0]
    assert len(set(calls)) == 5


def test_the_penalty_of_a_noise_conditioned_discriminator_is_told_the_timesteps():
    result = fit(side(0, 30), side(1, 30), model=TOLD, r1_weight=1.0)
    assert not same(result.final, fit(side(0, 30), side(1, 30), model=TOLD).final)


def test_an_alpha_bar_that_no_timestep_has_is_refused_only_where_it_is_used():
    fit(side(0, 10), side(1, 10), epochs=1, renoise_min_alpha_bar=0.99999)
    with pytest.raises(UserError, match=r"^train_disc\.renoise_min_alpha_bar=0\.99999: "):
        fit(side(0, 10), side(1, 10), model=TOLD, epochs=1, renoise_min_alpha_bar=0.99999)


def test_training_in_bf16_learns_what_fp32_does_within_three_percent():
    train, val = side(0, 60, shift=0.3), side(1, 60, shift=0.3)
    plain, quick = fit(train, val), fit(train, val, precision="bf16")
    for ours, theirs in zip(quick.history, plain.history, strict=True):
        # of the loss at the start, log 2: where both have learnt, nothing is left to compare
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=0.03 * math.log(2))
        assert ours["train_loss"] != theirs["train_loss"]
    assert quick.history[-1]["val_accuracy"] > 0.9
    for weight in quick.best.values():
        assert weight.dtype == torch.float32
        assert weight.is_contiguous()


def test_the_penalty_is_computed_in_float32_whatever_the_precision(monkeypatch):
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
    assert (False, torch.float32) in seen  # the penalty, which wants no dropout
