"""Parameters of the discriminator and of its training."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number


@dataclass
class DiscriminatorParams:
    channels: list[int] = number(1)  # one entry a level; each level halves the resolution
    dropout: float = number(0, 0.99)


@dataclass
class TrainDiscParams:
    epochs: int = number(1)
    batch_size: int = number(1)
    learning_rate: float = number(0, open_low=True)
    weight_decay: float = number(0)
    plateau_factor: float = number(0, 0.99, open_low=True)
    plateau_patience: int = number(0)  # epochs without a better validation loss
