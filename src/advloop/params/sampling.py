"""Parameters of drawing fake latents and real images."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number


@dataclass
class GenerateParams:
    num_samples: int = number(2)
    num_inference_steps: int = number(1)
    batch_size: int = number(1)
    predicted_min_alpha_bar: float = number(0, 0.999, open_low=True)  # of one-step predictions


@dataclass
class EncodeParams:
    batch_size: int = number(1)
