"""The fast paths, bf16 and channels_last, sample, learn and encode what plain fp32 does.

Samples are of the demo's committed network: those of a fresh one say little.
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image
from small_diffusion import make_criterion, make_setup, run
from small_params import diffusion_params
from tiny_unet import CONFIG

from advloop.core.device import autocast, eval_mode
from advloop.core.random import noise_for
from advloop.diffusion.processes import process_of
from advloop.diffusion.sampling import sample
from advloop.models.architectures import GroupNorm32
from advloop.models.autoencoder import load_autoencoder
from advloop.models.base_model import import_network
from advloop.models.codec import Codec
from advloop.models.denoiser import Denoiser, build_denoiser
from advloop.training.autoencoder import psnr
from advloop.training.batches import Side
from advloop.training.diffusion import validate

DATA = Path(__file__).resolve().parents[2] / "data"
UNET = DATA / "stage1/unet"
SHAPE = (16, 8, 8)
CPU = torch.device("cpu")
PROCESS = process_of(diffusion_params())


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return import_network(UNET, SHAPE).eval()


def samples(model: torch.nn.Module, precision: str) -> torch.Tensor:
    """Eight latents by DDIM in ten steps, from noise that is always the same."""
    noise = noise_for(range(8), SHAPE, 0, "precision")
    with eval_mode(model), autocast(precision, CPU):
        return sample(PROCESS, model, noise, 10)


@pytest.fixture(scope="module")
def exact(denoiser: Denoiser) -> torch.Tensor:
    return samples(denoiser, "fp32")


def error(latents: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square of the difference, over that of ``exact``."""
    return float((latents - exact).square().mean().sqrt() / exact.square().mean().sqrt())


def test_samples_in_bf16_are_those_of_fp32_within_two_percent(denoiser, exact):
    latents = samples(denoiser, "bf16")
    assert latents.dtype == torch.float32
    found = error(latents, exact)
    assert 0 < found < 0.02
    assert float(latents.std()) == pytest.approx(float(exact.std()), rel=0.01)


def test_samples_are_those_of_the_network_of_diffusers(exact):
    plain = UNet2DModel.from_pretrained(UNET, local_files_only=True, low_cpu_mem_usage=False)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = plain

        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return self.unet(noisy.contiguous(), timesteps).sample

    assert error(samples(Plain(), "fp32"), exact) < 1e-4


def test_group_norms_under_autocast_normalise_in_float32_and_return_the_given_type(denoiser):
    stream = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(2, 8, 4, 4, generator=stream)
    norm = GroupNorm32(4, 8)
    exact = torch.nn.GroupNorm(4, 8)
    assert torch.equal(norm(x), exact(x))
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact(x.bfloat16().float()).bfloat16())
    norms = [part for part in denoiser.modules() if isinstance(part, torch.nn.GroupNorm)]
    assert len(norms) > 10
    assert {type(norm) for norm in norms} == {GroupNorm32}


def test_latents_encoded_in_bf16_are_those_of_fp32_and_decode_as_well():
    """Forty quarters of the embedded plans: one percent apart, 0.02 dB at most.

    bfloat16 rounds to 0.4 %, layer after layer.
    """
    with zipfile.ZipFile(DATA / "freedoom_plans.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))[::40][:40]
        images = np.stack(
            [
                np.asarray(Image.open(archive.open(n)).convert("RGB").resize((128, 128)))[:64, :64]
                for n in names
            ]
        )
    model = load_autoencoder(DATA / "stage1/autoencoder")
    plain, quick = Codec(model), Codec(model, precision="bf16")
    exact, latents = plain.encode(images), quick.encode(images)
    assert latents.dtype == torch.float32
    assert 0 < error(latents, exact) < 0.01
    rows = np.arange(len(images))
    assert psnr(quick, images, rows, 40) == pytest.approx(psnr(plain, images, rows, 40), abs=0.02)


def test_training_in_bf16_lowers_the_loss_as_fp32_does_within_one_percent():
    """A tiny network: without the instructions for bf16, convolutions take minutes."""
    criterion = make_criterion()
    latents = Side(noise_for(range(16), (4, 8, 8), 0, "latents"))
    changes = {"epochs": 3, "samples_per_epoch": 64, "batch_size": 16, "learning_rate": 3e-3}
    setup = make_setup(criterion, ema_decay=0.5, eval_interval=3, **changes)
    setup = replace(setup, train=latents, val=latents)
    before = validate(setup, build_denoiser(CONFIG, seed=0), 0)["val_noise_loss"]
    exact, quick = (
        run(replace(setup, criterion=replace(criterion, precision=precision)))[0]
        for precision in ("fp32", "bf16")
    )
    assert exact[-1]["val_noise_loss"] < 0.95 * before
    for ours, theirs in zip(quick, exact, strict=True):
        assert ours["noise_loss"] != theirs["noise_loss"]
        for name in ours.keys() & {"noise_loss", "val_noise_loss"}:
            assert ours[name] == pytest.approx(theirs[name], rel=0.01), name
