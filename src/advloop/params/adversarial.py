"""Parameters of one adversarial round: how the diffusion model is fine-tuned, and on what."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number


@dataclass
class TrainDiffusionParams:
    epochs: int = number(1)
    samples_per_epoch: int | None = number(1)
    batch_size: int = number(1)
    learning_rate: float = number(0, open_low=True)
    warmup_steps: int = number(0)
    ema_decay: float = number(0, 0.99999)
    grad_clip: float = number(0, open_low=True)
    eval_interval: int = number(1)  # epochs
    sample_interval: int = number(1)  # epochs between two sample grids
    num_preview_samples: int = number(1)
    preview_steps: int = number(1)  # DDPM steps, spaced over num_train_timesteps
