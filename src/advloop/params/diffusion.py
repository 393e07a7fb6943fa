"""Parameters of the diffusion process, its network and the base model."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import choice, number


@dataclass
class DiffusionParams:
    num_train_timesteps: int = number(2, 10_000)  # beyond, linear alpha_bar is 0 in float32
    beta_schedule: str = choice("linear", "scaled_linear", "squaredcos_cap_v2")
    prediction_type: str = choice("epsilon", "v_prediction", "sample")


@dataclass
class UNetParams:
    block_out_channels: list[int] = number(1)  # one entry a level, highest resolution first
    layers_per_block: int = number(1)
    attention_levels: list[int] = number(0)  # levels with self-attention; 0 is the highest
    norm_num_groups: int = number(1)  # must divide every channel count


@dataclass
class BaseParams:
    pretrained: str | None  # local diffusers UNet2DModel folder, or None to train
    epochs: int = number(1)
    samples_per_epoch: int | None = number(1)  # None: every training latent once
    batch_size: int = number(1)
    learning_rate: float = number(0, open_low=True)
    warmup_steps: int = number(0)
    ema_decay: float = number(0, 0.99999)
    grad_clip: float = number(0, open_low=True)  # largest global gradient norm
    eval_interval: int = number(1)  # epochs
