"""One-step predictions from noised real latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from advloop.core.errors import UserError
from advloop.params.diffusion import DiffusionParams
from advloop.params.sampling import GenerateParams
from advloop.predictions import predict_latents
from advloop.sampling import Model, noise_for
from advloop.schedule import make_alphas_cumprod

SHAPE = (4, 8, 8)
PARAMS = GenerateParams(
    num_samples=30, num_inference_steps=2, batch_size=8, predicted_min_alpha_bar=0.5
)
DIFFUSION = DiffusionParams(
    num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon"
)
ALPHAS = make_alphas_cumprod(DIFFUSION.beta_schedule, DIFFUSION.num_train_timesteps)
TRAIN = torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(0))


def predict(
    model: Model, params: GenerateParams = PARAMS, seed: int = 0, iteration: int = 0, train=TRAIN
) -> torch.Tensor:
    where = torch.device("cpu")
    return torch.cat(
        list(
            predict_latents(
                model, train, params, DIFFUSION, seed, iteration, "fp32", where, lambda jobs: jobs
            )
        )
    )


def nothing(noisy: torch.Tensor, _timesteps: torch.Tensor) -> torch.Tensor:
    """A network that sees no noise: as eps, its x0 is the noisy latent over sqrt(alpha_bar)."""
    return torch.zeros_like(noisy)


def watched() -> tuple[list[tuple[torch.Tensor, torch.Tensor]], Model]:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def model(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        seen.append((noisy, timesteps))
        return torch.zeros_like(noisy)

    return seen, model


def test_a_network_that_knows_the_noise_gives_back_the_chosen_real_latents() -> None:
    def knowing(_noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        part = range(seen[-1], seen[-1] + len(timesteps))
        seen.append(part.stop)
        return noise_for(part, SHAPE, 0, "generate", 0, "predicted")

    seen = [0]
    predicted = predict(knowing)
    assert predicted.shape == (PARAMS.num_samples, *SHAPE)
    assert predicted.dtype == torch.float32
    rows = torch.cdist(predicted.flatten(1), TRAIN.flatten(1)).argmin(1)
    torch.testing.assert_close(predicted, TRAIN[rows])
    rows = rows.tolist()
    assert len(set(rows)) == len(rows)
    assert rows != sorted(rows)


def test_each_sample_costs_one_network_call_at_a_timestep_with_enough_signal() -> None:
    seen, model = watched()
    predict(model)
    assert [len(noisy) for noisy, _ in seen] == [8, 8, 8, 6]
    timesteps = torch.cat([t for _, t in seen])
    assert float(ALPHAS[timesteps].min()) >= 0.5
    limit = int((ALPHAS >= 0.5).sum())
    # evenly: one timestep in each of 30 equal parts of the allowed range
    parts = (timesteps.double() * PARAMS.num_samples / limit).long()
    assert sorted(parts.tolist()) == list(range(PARAMS.num_samples))
    assert timesteps.tolist() != sorted(timesteps.tolist())


def test_a_sample_does_not_depend_on_the_batch_that_it_is_in() -> None:
    assert torch.equal(predict(nothing), predict(nothing, replace(PARAMS, batch_size=7)))


@pytest.mark.parametrize("other", [{"seed": 1}, {"iteration": 1}])
def test_another_seed_or_iteration_takes_other_rows_noise_and_timesteps(other) -> None:
    first, second = watched(), watched()
    predict(first[1])
    predict(second[1], **other)
    for one, two in zip(first[0], second[0], strict=True):
        assert not torch.equal(one[1], two[1])
    again = watched()
    predict(again[1])
    for one, two in zip(first[0], again[0], strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_the_noise_is_not_that_of_the_samples() -> None:
    """Else a prediction and the DDIM sample of the same index would share their start."""
    ours = noise_for(range(3), SHAPE, 0, "generate", 0, "predicted")
    assert not torch.equal(ours, noise_for(range(3), SHAPE, 0, "generate", 0))


def test_predictions_carry_no_gradient() -> None:
    network = torch.nn.Conv2d(4, 4, 1)

    def model(noisy: torch.Tensor, _timesteps: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = network(noisy)
        return output

    assert not predict(model).requires_grad


def test_an_alpha_bar_that_no_timestep_reaches_is_refused() -> None:
    with pytest.raises(UserError, match=r"generate\.predicted_min_alpha_bar=0\.99999: "):
        predict(nothing, replace(PARAMS, predicted_min_alpha_bar=0.99999))


def test_fewer_training_latents_than_samples_are_used_again_with_other_noise() -> None:
    predicted = predict(nothing, train=TRAIN[:3])
    assert len(predicted) == PARAMS.num_samples
    assert len({tuple(row.flatten().tolist()) for row in predicted}) == PARAMS.num_samples
