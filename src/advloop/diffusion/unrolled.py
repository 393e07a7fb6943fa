"""Samples with a gradient in the model's weights, through all steps or through the last ones.

Fine-tuning through a sampler: Clark et al. 2024, "Directly Fine-Tuning Diffusion Models on
Differentiable Rewards" (DRaFT), whose DRaFT-K cuts the gradient off before the last steps, as
``gradient_steps`` does here.
"""

from __future__ import annotations

import torch
from torch.utils.checkpoint import checkpoint

from advloop.diffusion.process import Model, Process

# Latent values in all network calls with a gradient, up to which their activations are kept. A
# U-Net keeps some hundred values for each of them: about a GiB in float32.
KEPT = 1 << 20


def sample_with_gradient(
    process: Process,
    model: Model,
    noise: torch.Tensor,
    num_inference_steps: int,
    gradient_steps: int | None = None,
    recompute: bool | None = None,
) -> torch.Tensor:
    """``sample``'s latents (B, C, H, W), of the same values, with a gradient in the weights.

    noise: (B, C, H, W), standard normal. gradient_steps: the gradient goes through so many last
    steps, at most all; None: through all. recompute: keep only each step's input, and compute the
    rest again in the backward pass (Chen et al. 2016, arXiv 1604.06174), which costs a third more
    time; None: where all steps together would need much memory. It changes no value. ``model`` has
    to compute the same when it is called again.
    """
    process = process.to(noise.device)
    steps = process.steps(num_inference_steps)
    with_gradient = len(steps) if gradient_steps is None else gradient_steps
    if recompute is None:
        recompute = process.calls(with_gradient) * noise.numel() > KEPT
    latents = process.start(noise)
    for index, step in enumerate(steps):
        if index < len(steps) - with_gradient:
            with torch.no_grad():
                latents = step(model, latents)
        elif recompute:
            latents = checkpoint(step, model, latents, use_reentrant=False)
        else:
            latents = step(model, latents)
    return latents
