"""What the objectives minimise, and where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_unet import CONFIG
from torch import nn

from advloop.discriminator import Discriminator, load_discriminator, save_discriminator
from advloop.objectives.base import Batch, discriminator_terms
from advloop.objectives.none import noise_only
from advloop.objectives.registry import OBJECTIVES
from advloop.objectives.seed import seed_objective
from advloop.params.objectives import OBJECTIVES as PARAMS
from advloop.schedule import add_noise, make_alphas_cumprod, training_target
from advloop.unet import Denoiser, build_unet

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
TERMS = ["noise_loss", "discriminator_loss", "viability_score"]


@pytest.fixture
def discriminator(tmp_path) -> Discriminator:
    """Frozen, as the stage that fine-tunes loads it."""
    torch.manual_seed(0)
    fresh = Discriminator(4, [8], dropout=0.5)
    save_discriminator(tmp_path / "discriminator.pt", fresh.config, fresh.state_dict())
    return load_discriminator(tmp_path / "discriminator.pt", 4)


@pytest.fixture
def denoiser() -> Denoiser:
    return build_unet(CONFIG, seed=0)


def make_batch(
    model: nn.Module,
    discriminator: nn.Module | None,
    *,
    weight: float = 1.0,
    prediction_type: str = "v_prediction",
    timesteps: tuple[int, ...] = (10, 200, 500, 800),
    beta_schedule: str = "squaredcos_cap_v2",
    perfect: bool = False,
) -> Batch:
    """A forward pass of ``model``; with ``perfect`` its output is exactly the target."""
    stream = torch.Generator().manual_seed(0)
    shape = (len(timesteps), 4, 8, 8)
    x0, eps = torch.randn(shape, generator=stream), torch.randn(shape, generator=stream)
    alphas_cumprod = make_alphas_cumprod(beta_schedule, 1000)
    steps = torch.tensor(timesteps)
    noisy = add_noise(x0, eps, steps, alphas_cumprod)
    output = model(noisy, steps)
    if perfect:
        target = training_target(x0, eps, steps, alphas_cumprod, prediction_type)
        output = output - output.detach() + target
    return Batch(
        x0, eps, noisy, steps, output, alphas_cumprod, prediction_type, discriminator, weight
    )


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None for gradient in found.values())
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def size(values: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(value.square().sum()) for value in values.values()))


def test_every_objective_that_params_accept_exists():
    assert list(PARAMS) == list(OBJECTIVES)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_discriminator_loss_reaches_the_unet_and_leaves_the_discriminator_alone(
    prediction_type, denoiser, discriminator
):
    """The noise loss is made exactly zero, so that what is left is discriminator_loss."""
    before = {name: value.clone() for name, value in discriminator.state_dict().items()}
    options = {"prediction_type": prediction_type, "perfect": True}
    batch = make_batch(denoiser, discriminator, **options)
    loss, terms = seed_objective(batch)
    # the target is rebuilt through x - x + target, exact to a few float32 roundings
    assert float(terms["noise_loss"]) < 1e-12
    reached = gradients(denoiser, loss)
    assert all(float(value.abs().max()) > 0 for value in reached.values())

    control = gradients(denoiser, noise_only(make_batch(denoiser, discriminator, **options))[0])
    assert size(reached) > 100 * size(control)

    assert all(p.grad is None for p in discriminator.parameters())
    assert all(torch.equal(before[k], v) for k, v in discriminator.state_dict().items())


def test_the_gradient_of_the_seed_objective_lifts_the_judgement_of_the_discriminator(
    denoiser, discriminator
):
    """A small step along the negative gradient, with the noise loss at zero, fools D more."""
    options = {"perfect": True, "timesteps": (10, 10, 10, 10)}
    batch = make_batch(denoiser, discriminator, **options)
    output = batch.output.detach().requires_grad_()
    judged = Batch(**{**batch.__dict__, "output": output})
    loss, terms = seed_objective(judged)
    loss.backward()
    assert output.grad is not None
    moved = (output - 0.1 * output.grad / output.grad.norm()).detach()
    _, after = seed_objective(Batch(**{**batch.__dict__, "output": moved}))
    assert float(after["viability_score"]) > float(terms["viability_score"])
    assert float(after["discriminator_loss"]) < float(terms["discriminator_loss"])


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_seed_of_weight_zero_gives_the_gradient_of_none_to_the_byte(
    prediction_type, denoiser, discriminator
):
    options = {"prediction_type": prediction_type, "timesteps": (0, 200, 500, 999)}
    plain_loss, plain_terms = noise_only(make_batch(denoiser, discriminator, **options))
    plain = gradients(denoiser, plain_loss)
    loss, terms = seed_objective(make_batch(denoiser, discriminator, weight=0.0, **options))
    zero = gradients(denoiser, loss)
    assert torch.equal(loss, plain_loss)
    assert all(torch.equal(terms[name], plain_terms[name]) for name in TERMS)
    assert all(zero[name].numpy().tobytes() == plain[name].numpy().tobytes() for name in plain)


def test_the_weight_multiplies_the_discriminator_loss_alone(denoiser, discriminator):
    loss, terms = seed_objective(make_batch(denoiser, discriminator, weight=0.25))
    expected = terms["noise_loss"] + 0.25 * terms["discriminator_loss"]
    torch.testing.assert_close(loss.detach(), expected)


def test_the_discriminator_judges_the_prediction_and_not_the_true_latents(denoiser):
    seen = []

    class Recorder(nn.Module):
        def forward(self, latents: torch.Tensor) -> torch.Tensor:
            seen.append(latents)
            return latents.mean((1, 2, 3))

    batch = make_batch(denoiser, Recorder())
    seed_objective(batch)
    noise_only(batch)
    assert len(seen) == 2
    for judged in seen:
        torch.testing.assert_close(judged, batch.predicted_x0())
        assert not torch.allclose(judged, batch.x0, atol=0.1)
    assert seen[0].requires_grad


def test_discriminator_loss_is_the_mean_over_samples_of_minus_log_sigmoid():
    logits = torch.tensor([math.log(3.0), -math.log(3.0)])  # D = 3/4 and 1/4
    loss, viability = discriminator_terms(logits)
    assert float(loss) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2, rel=1e-6)
    assert float(loss) != pytest.approx(-math.log(0.5), rel=0.1)  # minus log of the mean of D
    assert float(viability) == pytest.approx(0.5, rel=1e-6)


def test_viability_is_the_mean_of_sigmoid_and_carries_no_gradient():
    logits = torch.tensor([0.0, 2.0, -1.0, 50.0], requires_grad=True)
    loss, viability = discriminator_terms(logits)
    expected = sum(1 / (1 + math.exp(-value)) for value in (0.0, 2.0, -1.0, 50.0)) / 4
    assert float(viability) == pytest.approx(expected, rel=1e-6)
    assert loss.requires_grad
    assert not viability.requires_grad


def test_a_confident_discriminator_gives_a_large_and_finite_loss():
    logits = torch.tensor([-1e4, -200.0], requires_grad=True)  # sigmoid underflows to 0 in float32
    loss, viability = discriminator_terms(logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(5100.0)
    assert float(viability) == 0.0
    torch.testing.assert_close(logits.grad, torch.tensor([-0.5, -0.5]))


def test_none_reports_the_terms_and_computes_no_gradient_through_the_discriminator(
    denoiser, discriminator
):
    graphs = []
    discriminator.register_forward_hook(lambda _m, _i, output: graphs.append(output.requires_grad))
    loss, terms = noise_only(make_batch(denoiser, discriminator))
    assert graphs == [False]
    assert list(terms) == TERMS
    assert not any(value.requires_grad for value in terms.values())
    assert torch.equal(loss.detach(), terms["noise_loss"])
    _, judged = seed_objective(make_batch(denoiser, discriminator))
    assert graphs == [False, True]
    assert all(torch.equal(terms[name], judged[name]) for name in TERMS)


def test_none_without_a_discriminator_reports_the_noise_loss_alone(denoiser):
    loss, terms = noise_only(make_batch(denoiser, None))
    assert list(terms) == ["noise_loss"]
    assert loss.requires_grad


def test_the_seed_objective_reports_detached_scalars(denoiser, discriminator):
    loss, terms = seed_objective(make_batch(denoiser, discriminator))
    assert list(terms) == TERMS
    assert loss.shape == ()
    assert all(value.shape == () and not value.requires_grad for value in terms.values())


@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("timestep", [0, 999])
def test_loss_and_gradient_are_finite_at_both_ends_of_the_process(
    beta_schedule, prediction_type, timestep, denoiser, discriminator
):
    batch = make_batch(
        denoiser,
        discriminator,
        prediction_type=prediction_type,
        beta_schedule=beta_schedule,
        timesteps=(timestep,) * 4,
    )
    loss, terms = seed_objective(batch)
    assert all(bool(torch.isfinite(value)) for value in [loss, *terms.values()])
    assert math.isfinite(size(gradients(denoiser, loss)))


@pytest.mark.parametrize(
    ("prediction_type", "expected"),
    [
        ("epsilon", (1.0 - 2.0) ** 2),
        ("sample", (1.0 - 3.0) ** 2),
        # alpha_bar 0.64: v = 0.8 eps - 0.6 x0 = 1.6 - 1.8 = -0.2
        ("v_prediction", (1.0 + 0.2) ** 2),
    ],
)
def test_noise_loss_is_the_mean_squared_error_to_the_target(prediction_type, expected):
    one = torch.ones(2, 1, 2, 2)
    batch = Batch(
        x0=3 * one,
        eps=2 * one,
        noisy=torch.zeros_like(one),
        timesteps=torch.tensor([1, 1]),
        output=one,
        alphas_cumprod=torch.tensor([0.9, 0.64]),
        prediction_type=prediction_type,
        discriminator=None,
        weight=0.0,
    )
    assert float(batch.noise_loss()) == pytest.approx(expected, rel=1e-6)


def test_noise_loss_weighs_every_sample_of_the_batch_alike():
    output = torch.zeros(2, 1, 2, 2)
    output[0] = 2.0  # an error of 4 in one sample, of 0 in the other
    zero = torch.zeros_like(output)
    alphas_cumprod = torch.tensor([0.9, 0.1])
    batch = Batch(
        zero, zero, zero, torch.tensor([0, 1]), output, alphas_cumprod, "epsilon", None, 0.0
    )
    assert float(batch.noise_loss()) == pytest.approx(2.0)
