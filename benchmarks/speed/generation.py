"""DDIM generation: ours, a loop like diffusers' DDIMPipeline, and the network's forward passes."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DModel

from advloop.core.device import autocast
from advloop.core.random import batches, noise_for
from advloop.diffusion.sampling import sample
from advloop.models.denoiser import build_denoiser
from race import Contender
from training import PROCESS

PIPELINE_BATCH = 16  # eval_batch_size of diffusers' example


def contenders(
    config: dict[str, Any],
    count: int,
    steps: int,
    batch: int,
    precision: str,
    device: torch.device,
    pipeline_batch: int = PIPELINE_BATCH,
) -> list[Contender]:
    """Each draws ``count`` latents, with ``steps`` network calls for each."""
    ours = build_denoiser(config, seed=0).to(device).eval()
    shape = ours.latent_shape

    def our_samples() -> None:
        with torch.no_grad(), autocast(precision, device):
            for part in batches(count, batch):
                noise = noise_for(part, shape, 0, "bench").to(device)
                sample(PROCESS, ours, noise, steps).cpu()

    plain: Any = UNet2DModel(**config)
    plain.to(device).eval()
    scheduler: Any = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )

    def pipeline_samples() -> None:
        scheduler.set_timesteps(steps)
        with torch.no_grad():
            for part in batches(count, min(pipeline_batch, count)):
                latents = torch.randn(len(part), *shape, device=device)
                for t in scheduler.timesteps:
                    output = plain(latents, t).sample
                    latents = scheduler.step(output, t, latents, eta=0.0).prev_sample
                latents.cpu()

    def bare_forwards() -> None:
        with torch.no_grad(), autocast(precision, device):
            for part in batches(count, batch):
                latents = torch.randn(len(part), *shape, device=device)
                timesteps = torch.zeros(len(part), dtype=torch.long, device=device)
                for _ in range(steps):
                    ours(latents, timesteps)

    calls = count * steps
    return [
        Contender("advloop", our_samples, calls, ours=True),
        Contender("loop of DDIMPipeline, fp32", pipeline_samples, calls, target=2.0),
        Contender(f"bare forwards, {precision}", bare_forwards, calls, target=0.95),
    ]
