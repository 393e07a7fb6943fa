"""A diffusion model plays against a discriminator: what each step does, and how a play ends."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from kept_snapshots import Memory, flat, load
from small_diffusion import copy_weights, equal, run
from small_opponent import SMALL, make_opponent, play_setup
from tiny_unet import CONFIG

from advloop.core.random import noise_for
from advloop.diffusion.sampling import sample
from advloop.models.denoiser import build_denoiser
from advloop.training.diffusion import train_diffusion
from advloop.training.opponent import Opponent

TERMS = ["generator_loss", "viability_score", "margin", "discriminator_accuracy"]
TERMS += ["discriminator_steps", "penalty", "discriminator_grad_norm", "sample_grad_norm"]
ALWAYS = {"collapse_gradient": 1e9}  # every gradient is below it


def gradient_of_play(opponent: Opponent) -> list[torch.Tensor]:
    model = build_denoiser(CONFIG, seed=0)
    loss, _ = opponent.play(model, {})
    loss.backward()
    return [p.grad for p in model.parameters()]


# --- one step ---


def test_gradient_is_that_of_the_generators_loss_of_the_samplers_own_samples():
    """Autograd through a loop over the same steps, without recomputation."""
    opponent = make_opponent(r1_weight=0.0, r2_weight=0.0)
    found = gradient_of_play(opponent)
    judge, model = opponent.discriminator, build_denoiser(CONFIG, seed=0)
    with torch.enable_grad():
        noise = noise_for(range(3), (4, 8, 8), 0, "train_diffusion", 1, "samples")
        draw = sample.__wrapped__  # without no_grad
        samples = draw(opponent.criterion.process, model, noise, 3)
        opponent.step = 0
        real = opponent._reals.draw(3, opponent._stream("reals"))
        loss = opponent.judge(judge(real.latents).detach(), judge(samples))[0]
    expected = torch.autograd.grad(loss, list(model.parameters()))
    assert all(bool(one.any()) for one in expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-7)


def test_recomputation_changes_no_byte_of_the_gradient(monkeypatch):
    plain = gradient_of_play(make_opponent())
    monkeypatch.setattr("advloop.diffusion.unrolled.KEPT", 0)
    assert all(map(torch.equal, plain, gradient_of_play(make_opponent())))


def test_fewer_gradient_steps_give_another_gradient_and_the_same_loss():
    whole, last = make_opponent(), make_opponent(gradient_steps=1)
    losses = [one.play(build_denoiser(CONFIG, seed=0), {})[0] for one in (whole, last)]
    assert torch.equal(*(loss.detach() for loss in losses))
    found = [gradient_of_play(make_opponent(gradient_steps=n)) for n in (1, 2, 3, None)]
    sizes = [float(torch.cat([g.flatten() for g in one]).norm()) for one in found]
    assert len(set(sizes[:3])) == 3
    assert sizes[2] == sizes[3]


def test_discriminator_learns_in_its_own_steps_alone_and_takes_no_gradient_from_the_models():
    opponent = make_opponent()
    weights, before = (
        list(opponent.discriminator.parameters()),
        copy_weights(opponent.discriminator),
    )
    loss, _ = opponent.play(build_denoiser(CONFIG, seed=0), {})
    taught, last = copy_weights(opponent.discriminator), [p.grad.clone() for p in weights]
    assert not equal(before, taught)
    loss.backward()
    assert equal(copy_weights(opponent.discriminator), taught)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(weights, last, strict=True))


def test_samples_join_the_recent_fakes_and_the_oldest_go():
    opponent = make_opponent(num_classes=2)
    first = opponent.recent.latents
    assert len(first) == 6
    model = build_denoiser(CONFIG | {"num_class_embeds": 2}, seed=0)
    opponent.play(model, {})
    assert len(opponent.recent) == len(opponent.recent.labels) == SMALL["recent_fakes"]
    assert torch.equal(opponent.recent.latents[:5], first[1:])
    samples = opponent.recent.latents[5:]
    opponent.play(model, {})
    assert torch.equal(opponent.recent.latents[2:5], samples)
    assert not opponent.recent.latents.requires_grad


def test_samples_of_each_step_are_their_own_and_depend_on_the_index_alone():
    model = build_denoiser(CONFIG, seed=0)
    seen = []
    for size in (2, 4):
        opponent = make_opponent(samples_per_step=size)
        for _ in range(4 // size):
            opponent.play(model, {})
        seen.append(opponent.recent.latents[-4:])
    torch.testing.assert_close(*seen)
    assert len(seen[0][:, 0, 0, 0].unique()) == 4


def test_dropout_of_the_network_is_off_in_samples_and_on_again_afterwards():
    config = CONFIG | {"dropout": 0.9}
    model, opponent = build_denoiser(config, seed=0).train(), make_opponent()
    opponent.play(model, {})
    assert model.training
    noise = noise_for(range(3), (4, 8, 8), 0, "train_diffusion", 1, "samples")
    expected = sample(opponent.criterion.process, model.eval(), noise, 3)
    assert torch.equal(opponent.recent.latents[-3:], expected)


def test_steps_follow_the_accuracy():
    strong, weak = (
        make_opponent(min_accuracy=low, max_accuracy=high) for low, high in ((0.0, 0.01), (0.99, 1))
    )
    model, steps = build_denoiser(CONFIG, seed=0), []
    for opponent in (strong, weak):
        steps.append([opponent.play(model, {})[1]["discriminator_steps"] for _ in range(9)])
    assert [int(n) for n in steps[0]] == [2] * 4 + [1] * 5
    assert [int(n) for n in steps[1]] == [2] * 4 + [3] * 4 + [4]


# --- a training ---


def test_history_has_the_terms_of_the_play_and_validation_those_of_samples():
    rows, _, _ = run(play_setup(make_opponent(weight=0.5)))
    assert list(rows[0])[:4] == ["epoch", "learning_rate", "loss", "noise_loss"]
    assert list(rows[0])[4:13] == [*TERMS, "grad_norm"]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert row["loss"] == pytest.approx(row["noise_loss"] + 0.5 * row["generator_loss"])
        expected = row["val_noise_loss"] + 0.5 * row["val_generator_loss"]
        assert row["val_loss"] == pytest.approx(expected)
        assert 0 < row["val_viability_score"] < 1


def test_same_bytes_twice_and_other_ones_for_another_seed():
    first, second, other = (
        run(replace(play_setup(make_opponent()), seed=seed)) for seed in (0, 0, 1)
    )
    assert first[0] == second[0] != other[0]
    assert equal(first[2][-1], second[2][-1])


def trained(opponent: Opponent, start: bytes | None = None, **changes: Any):
    """(history, weights, average, snapshots)."""
    model, memory, averages = build_denoiser(CONFIG, seed=0), Memory(start), []
    setup = play_setup(opponent, **changes)
    history = train_diffusion(
        setup, model, list, lambda _, __, ema: averages.append(copy_weights(ema)), memory
    )
    return history, copy_weights(model), averages[-1] if averages else None, memory.taken


@pytest.mark.parametrize("num_classes", [0, 2])
def test_play_resumed_after_any_epoch_is_the_uninterrupted_one_to_the_byte(
    num_classes, monkeypatch
):
    monkeypatch.setitem(CONFIG, "num_class_embeds", num_classes or None)
    history, model, average, taken = trained(make_opponent(num_classes), epochs=3)
    for start in taken[:-1]:
        resumed = trained(make_opponent(num_classes), start, epochs=3)
        assert resumed[0] == history
        assert equal(resumed[1], model)
        assert equal(resumed[2], average)
        assert equal(*(flat(load(t[-1])["opponent"]) for t in (resumed[3], taken)))


# --- the collapse ---


def test_collapse_ends_the_round_with_the_weights_from_before_the_first_flat_step():
    """Flat from the fifth step on, which is the second one of the second epoch."""
    opponent = make_opponent(collapse_steps=3)
    model, kept = build_denoiser(CONFIG, seed=0), []
    play = opponent.play

    def flat_from_the_fifth(network, parts):
        if opponent.step == 4:
            opponent.collapse.gradient = 1e9
            kept.append((copy_weights(network), copy_weights(parts["average"].module.module)))
        return play(network, parts)

    opponent.play = flat_from_the_fifth  # type: ignore[method-assign]
    given = []
    setup = play_setup(opponent, epochs=5, eval_interval=5)
    history = train_diffusion(
        setup, model, list, lambda _, m, e: given.append((copy_weights(m), copy_weights(e)))
    )
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert ["val_loss" in row for row in history] == [False, False, True]
    assert opponent.step == 7
    assert equal(copy_weights(model), kept[0][0])
    assert equal(given[-1][1], kept[0][1])
    assert "from step 4" not in opponent.collapse_report()
    assert "the weights of step 4" in opponent.collapse_report()
    assert "\n" not in opponent.collapse_report()


def test_interrupted_flat_steps_are_no_collapse():
    opponent = make_opponent(collapse_steps=3)
    model = build_denoiser(CONFIG, seed=0)
    for gradient in (1e9, 1e9, 0.0, 1e9, 1e9):
        opponent.collapse.gradient = gradient
        opponent.play(model, {"model": model})
        assert not opponent.collapsed
        assert (opponent.kept is None) == (gradient == 0.0)


def test_collapsed_play_that_is_resumed_does_nothing_more():
    history, model, average, taken = trained(make_opponent(collapse_steps=4, **ALWAYS), epochs=3)
    assert len(history) == 2
    for start in taken:
        resumed = trained(make_opponent(collapse_steps=4, **ALWAYS), start, epochs=3)
        assert resumed[0] == history
        assert equal(resumed[1], model)
        assert resumed[2] is None or equal(resumed[2], average)
