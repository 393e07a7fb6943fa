"""Parameters of drawing fake latents and real images."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number


@dataclass
class GenerateParams:
    num_samples: int = number(2)
    num_inference_steps: int = number(1)
    batch_size: int = number(1)


@dataclass
class EncodeParams:
    batch_size: int = number(1)
