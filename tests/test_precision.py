"""The quick paths, bf16 and either layout, draw, learn and encode what plain fp32 does.

What is sampled from is the demo's committed network: a chain of a fresh one says little.
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
from tiny_unet import CONFIG

from advloop.autoencoder import Codec, load_autoencoder
from advloop.autoencoder_training import psnr
from advloop.core.runtime import autocast, eval_mode
from advloop.criterion import Criterion, held_out
from advloop.diffusion_training import Setup, train_diffusion
from advloop.objectives.none import noise_only
from advloop.params.diffusion import BaseParams, DiffusionParams
from advloop.sampling import noise_for, sample_ddim
from advloop.schedule import make_alphas_cumprod
from advloop.unet import Denoiser, GroupNorm32, build_unet, import_unet

DATA = Path(__file__).resolve().parents[1] / "data"
UNET = DATA / "stage1/unet"
SHAPE = (16, 8, 8)
CPU = torch.device("cpu")
ALPHAS = make_alphas_cumprod("squaredcos_cap_v2", 1000)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return import_unet(UNET, SHAPE).eval()


def samples(model: torch.nn.Module, precision: str) -> torch.Tensor:
    """Eight latents by DDIM in ten steps, from noise that is always the same."""
    noise = noise_for(range(8), SHAPE, 0, "precision")
    with eval_mode(model), autocast(precision, CPU):
        return sample_ddim(model, noise, ALPHAS, "v_prediction", 10)


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


def test_samples_are_the_same_in_the_layout_of_a_gpu(exact, monkeypatch):
    monkeypatch.setattr("advloop.unet.layout", lambda _: torch.channels_last)
    network = import_unet(UNET, SHAPE).placed(CPU).eval()
    kernel = network.unet.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert not kernel.is_contiguous()
    assert 0 < error(samples(network, "fp32"), exact) < 1e-4


def test_samples_are_those_of_the_network_of_diffusers(exact):
    plain = UNet2DModel.from_pretrained(UNET, local_files_only=True, low_cpu_mem_usage=False)

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = plain

        def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return self.unet(noisy.contiguous(), timesteps).sample

    assert error(samples(Plain(), "fp32"), exact) < 1e-4


def test_group_norms_under_autocast_normalise_in_float32_and_return_what_they_were_given():
    stream = torch.Generator().manual_seed(0)
    x = 3 + torch.randn(2, 8, 4, 4, generator=stream)
    norm = GroupNorm32(4, 8)
    exact = torch.nn.GroupNorm(4, 8)
    assert torch.equal(norm(x), exact(x))
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact(x.bfloat16().float()).bfloat16())


def test_every_group_norm_of_the_network_is_one_of_those(denoiser):
    norms = [part for part in denoiser.modules() if isinstance(part, torch.nn.GroupNorm)]
    assert len(norms) > 10
    assert {type(norm) for norm in norms} == {GroupNorm32}


def test_latents_encoded_in_bf16_are_those_of_fp32_and_decode_as_well():
    """Forty pictures of the embedded archive: half a percent apart, 0.02 dB at most."""
    with zipfile.ZipFile(DATA / "freedoom_plans.zip") as archive:
        names = sorted(n for n in archive.namelist() if n.endswith(".png"))[::40][:40]
        images = np.stack(
            [np.asarray(Image.open(archive.open(n)).convert("RGB").resize((64, 64))) for n in names]
        )
    model = load_autoencoder(DATA / "stage1/autoencoder")
    plain, quick = Codec(model), Codec(model, precision="bf16")
    exact, latents = plain.encode(images), quick.encode(images)
    assert latents.dtype == torch.float32
    assert 0 < error(latents, exact) < 0.005
    rows = np.arange(len(images))
    assert psnr(quick, images, rows, 40) == pytest.approx(psnr(plain, images, rows, 40), abs=0.02)


def test_training_in_bf16_lowers_the_loss_as_fp32_does_within_one_percent():
    """Of a network as small as can be: without the instructions, bf16 convolutions crawl."""
    params = BaseParams(
        pretrained=None,
        epochs=3,
        samples_per_epoch=64,
        batch_size=16,
        learning_rate=3e-3,
        warmup_steps=0,
        ema_decay=0.5,
        grad_clip=1.0,
        eval_interval=3,
    )
    criterion = Criterion(
        objective=noise_only,
        weight=0.0,
        discriminator=None,
        diffusion=DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction"),
        precision="fp32",
        where=CPU,
    )
    latents = noise_for(range(16), (4, 8, 8), 0, "latents")
    before = held_out(criterion, build_unet(CONFIG, seed=0), latents, 0, 16)["noise_loss"]
    rows = {}
    for precision in ("fp32", "bf16"):
        setup = Setup(params, replace(criterion, precision=precision), latents, latents, 0, "t", 0)
        model = build_unet(CONFIG, seed=0)
        rows[precision] = train_diffusion(setup, model, lambda items: items, lambda *_: None)
    assert rows["fp32"][-1]["val_noise_loss"] < 0.95 * before
    for exact_row, row in zip(rows["fp32"], rows["bf16"], strict=True):
        assert row["noise_loss"] != exact_row["noise_loss"]
        for name in row.keys() & {"noise_loss", "val_noise_loss"}:
            assert row[name] == pytest.approx(exact_row[name], rel=0.01), name
