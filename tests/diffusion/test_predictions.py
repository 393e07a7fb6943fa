"""One-step predictions of noised real latents."""

from __future__ import annotations

import pytest
import torch
from recorder import Recorder
from refusal import refusal
from small_params import diffusion_params

from advloop.core.random import noise_for
from advloop.diffusion.predictions import predict_latents
from advloop.diffusion.processes import process_of
from advloop.params.training import GenerateParams

SHAPE, COUNT = (4, 8, 8), 30
PROCESS = process_of(diffusion_params("epsilon"))
TRAIN = torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(0))


def predict(
    model, seed=0, iteration=0, train=TRAIN, start=0, process=PROCESS, **changes
) -> torch.Tensor:
    small = {
        "num_samples": COUNT,
        "num_inference_steps": 2,
        "batch_size": 8,
        "predicted_min_alpha_bar": 0.5,
    }
    params, device = GenerateParams(**small | changes), torch.device("cpu")
    parts = predict_latents(
        model, train, params, process, seed, iteration, "fp32", device, list, start
    )
    return torch.cat(list(parts))


def test_a_network_that_knows_the_noise_gives_back_the_chosen_real_latents():
    def oracle(_noisy, timesteps):
        part = range(seen[-1], seen[-1] + len(timesteps))
        seen.append(part.stop)
        return noise_for(part, SHAPE, 0, "generate", 0, "predicted")

    seen = [0]
    predicted = predict(oracle)
    assert (predicted.shape, predicted.dtype) == ((COUNT, *SHAPE), torch.float32)
    rows = torch.cdist(predicted.flatten(1), TRAIN.flatten(1)).argmin(1)
    torch.testing.assert_close(predicted, TRAIN[rows])
    assert len(rows.unique()) == COUNT
    assert not torch.equal(rows, rows.sort().values)


def test_each_sample_costs_one_network_call_at_a_timestep_with_enough_signal():
    network = Recorder()
    predict(network)
    assert list(map(len, network.noisy)) == [8, 8, 8, 6]
    timesteps, alpha_bars = torch.cat(network.timesteps), PROCESS.alpha_bars
    assert float(alpha_bars[timesteps].min()) >= 0.5
    # evenly: one timestep in each of 30 equal parts of the allowed range
    parts = (timesteps.double() * COUNT / int((alpha_bars >= 0.5).sum())).long()
    assert sorted(parts.tolist()) == list(range(COUNT))
    assert not torch.equal(timesteps, timesteps.sort().values)


def test_a_sample_does_not_depend_on_its_batch_or_on_where_the_stage_resumes():
    whole = predict(Recorder())
    assert torch.equal(whole, predict(Recorder(), batch_size=7))
    assert torch.equal(whole[16:], predict(Recorder(), start=16))


@pytest.mark.parametrize("other", [{"seed": 1}, {"iteration": 1}])
def test_another_seed_or_iteration_takes_other_timesteps_and_the_same_one_the_same(other):
    first, again, second = Recorder(), Recorder(), Recorder()
    samples = predict(first)
    assert torch.equal(samples, predict(again))
    assert all(map(torch.equal, first.timesteps, again.timesteps))
    assert not torch.equal(samples, predict(second, **other))
    assert not any(map(torch.equal, first.timesteps, second.timesteps))


def test_the_noise_is_not_that_of_the_samples():
    """Else a prediction and the DDIM sample of the same index would share their noise."""
    ours = noise_for(range(3), SHAPE, 0, "generate", 0, "predicted")
    assert not torch.equal(ours, noise_for(range(3), SHAPE, 0, "generate", 0))


def test_predictions_carry_no_gradient():
    network = torch.nn.Conv2d(4, 4, 1)
    assert not predict(lambda noisy, _timesteps: network(noisy)).requires_grad


def test_an_alpha_bar_that_no_timestep_reaches_is_refused():
    coarse = process_of(diffusion_params("epsilon", num_train_timesteps=2))
    message = refusal(predict, Recorder(), process=coarse, predicted_min_alpha_bar=0.999)
    assert message.startswith("generate.predicted_min_alpha_bar=0.999: ")


def test_fewer_training_latents_than_samples_are_used_again_with_other_noise():
    predicted = predict(Recorder(), train=TRAIN[:3])
    assert len(predicted.flatten(1).unique(dim=0)) == COUNT
