"""A training step of the U-Net: ours, the loop of diffusers' example, and the bare network."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from advloop.core.device import autocast
from advloop.diffusion.criterion import noise_criterion
from advloop.diffusion.variance_preserving import VariancePreserving, make_alphas_cumprod
from advloop.models.denoiser import build_denoiser
from advloop.params.training import BaseParams
from advloop.training.batches import Side
from advloop.training.diffusion import Setup, train_diffusion
from race import Contender

PROCESS = VariancePreserving(make_alphas_cumprod("squaredcos_cap_v2", 1000), "v_prediction")


def epoch_of(
    latents: torch.Tensor, batch: int, precision: str, device: torch.device, epochs: int = 1
) -> Setup:
    """The base's training over ``latents`` (N, C, H, W), N a multiple of ``batch``.

    It validates after the last epoch alone.
    """
    params = BaseParams(
        pretrained=None,
        epochs=epochs,
        samples_per_epoch=None,
        batch_size=batch,
        learning_rate=1e-4,
        warmup_steps=0,
        ema_decay=0.999,
        grad_clip=1.0,
        eval_interval=epochs,
    )
    criterion = noise_criterion(PROCESS, precision, device)
    train, val = Side(latents), Side(latents[:1])
    return Setup(params, criterion, train, val, 0, "train_base", iteration=-1)


def contenders(
    config: dict[str, Any], latents: torch.Tensor, batch: int, precision: str, device: torch.device
) -> list[Contender]:
    """Each trains one epoch over ``latents`` (N, C, H, W), N a multiple of ``batch``.

    The example's loop is left out if accelerate is not installed.
    """
    count, setup = len(latents), epoch_of(latents, batch, precision, device)
    ours = build_denoiser(config, seed=0).to(device)

    def our_epoch() -> None:
        train_diffusion(setup, ours, lambda items: items, lambda *_: None)

    bare = build_denoiser(config, seed=0).to(device)
    bare_optimizer = torch.optim.AdamW(bare.parameters(), 1e-4, fused=True)
    noisy, target = torch.randn(2, batch, *latents.shape[1:], device=device)
    timesteps = torch.arange(batch, device=device)

    def bare_epoch() -> None:
        for _ in range(count // batch):
            with autocast(precision, device):
                output = bare(noisy, timesteps)
            F.mse_loss(output, target).backward()
            bare_optimizer.step()
            bare_optimizer.zero_grad(set_to_none=True)

    found = [
        Contender("advloop", our_epoch, count, ours=True),
        Contender(f"bare forward, backward, step, {precision}", bare_epoch, count, target=0.95),
    ]
    if find_spec("accelerate"):
        found.append(_example(config, latents, batch, device))
    return found


def _example(
    config: dict[str, Any], latents: torch.Tensor, batch: int, device: torch.device
) -> Contender:
    """The loop of diffusers' examples/unconditional_image_generation, in fp32."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no")
    scheduler: Any = DDPMScheduler(prediction_type="v_prediction")
    unet: Any = UNet2DModel(**config)
    average = EMAModel(unet.parameters(), decay=0.999)
    average.to(device)
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
            loss.detach().item()  # its progress bar reads the loss of every step

    return Contender("diffusers + accelerate, fp32", epoch, len(latents), target=2.0)
