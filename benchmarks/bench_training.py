"""A training step of the U-Net: ours, the loop of diffusers' example, and the bare network."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from advloop.core.runtime import autocast
from advloop.criterion import Criterion
from advloop.diffusion_training import Setup, train_diffusion
from advloop.objectives.none import noise_only
from advloop.params.diffusion import BaseParams, DiffusionParams
from advloop.unet import build_unet
from race import Contender

DIFFUSION = DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction")


def epoch_of(latents: torch.Tensor, batch: int, precision: str, where: torch.device) -> Setup:
    """One epoch of the base's training over ``latents`` (N, C, H, W), N a multiple of ``batch``."""
    params = BaseParams(
        pretrained=None,
        epochs=1,
        samples_per_epoch=None,
        batch_size=batch,
        learning_rate=1e-4,
        warmup_steps=0,
        ema_decay=0.999,
        grad_clip=1.0,
        eval_interval=1,
    )
    criterion = Criterion(
        objective=noise_only,
        weight=0.0,
        discriminator=None,
        diffusion=DIFFUSION,
        precision=precision,
        where=where,
    )
    return Setup(params, criterion, latents, latents[:1], 0, "train_base", iteration=-1)


def contenders(
    config: dict[str, Any], latents: torch.Tensor, batch: int, precision: str, where: torch.device
) -> list[Contender]:
    """Each trains one epoch over ``latents`` (N, C, H, W), N a multiple of ``batch``.

    The loop of the example is left out where accelerate is not installed.
    """
    count, setup = len(latents), epoch_of(latents, batch, precision, where)
    ours = build_unet(config, seed=0).placed(where)

    def our_epoch() -> None:
        train_diffusion(setup, ours, lambda items: items, lambda *_: None)

    bare = build_unet(config, seed=0).placed(where)
    bare_optimizer = torch.optim.AdamW(bare.parameters(), 1e-4, fused=True)
    noisy, target = torch.randn(2, batch, *latents.shape[1:], device=where)
    timesteps = torch.arange(batch, device=where)

    def bare_epoch() -> None:
        for _ in range(count // batch):
            with autocast(precision, where):
                output = bare(noisy, timesteps)
            F.mse_loss(output, target).backward()
            bare_optimizer.step()
            bare_optimizer.zero_grad(set_to_none=True)

    found = [
        Contender("advloop", our_epoch, count, ours=True),
        Contender(f"bare forward, backward, step, {precision}", bare_epoch, count, target=0.95),
    ]
    if find_spec("accelerate"):
        found.append(_example(config, latents, batch, where))
    return found


def _example(
    config: dict[str, Any], latents: torch.Tensor, batch: int, where: torch.device
) -> Contender:
    """As in diffusers' examples/unconditional_image_generation, in fp32."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=where.type == "cpu", mixed_precision="no")
    scheduler = DDPMScheduler(prediction_type="v_prediction")
    unet = UNet2DModel(**config)
    average = EMAModel(unet.parameters(), decay=0.999)
    average.to(where)
    unet, optimizer, loader = accelerator.prepare(
        unet,
        torch.optim.AdamW(unet.parameters(), 1e-4),
        DataLoader(TensorDataset(latents), batch_size=batch, shuffle=True),
    )

    def epoch() -> None:
        unet.train()
        for (clean,) in loader:
            noise = torch.randn(clean.shape, device=clean.device)
            steps = torch.randint(0, 1000, (len(clean),), device=clean.device)
            noised = scheduler.add_noise(clean, noise, steps)
            with accelerator.accumulate(unet):
                output = unet(noised, steps).sample
                loss = F.mse_loss(output.float(), scheduler.get_velocity(clean, noise, steps))
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(unet.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            average.step(unet.parameters())
            loss.detach().item()  # its progress bar shows the loss of every step

    return Contender("diffusers + accelerate, fp32", epoch, len(latents), target=2.0)
