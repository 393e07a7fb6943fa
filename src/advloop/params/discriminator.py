"""Parameters of the discriminator and of its training."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import number

MAX_OTHER_FAKES = 0.9  # of the fake class: the current model's own samples keep a tenth


@dataclass
class DiscriminatorParams:
    noise_conditioned: bool  # judges re-noised latents and is told their timestep
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
    predicted_fraction: float = number(0, MAX_OTHER_FAKES)  # fakes that are one-step predictions
    replay_fraction: float = number(0, MAX_OTHER_FAKES)  # training fakes of earlier iterations
    r1_weight: float = number(0)  # of the squared gradient at the reals beside the BCE
    r1_sigma: float = number(0, open_low=True)  # its finite difference, in scaled units
    stop_accuracy: float | None = number(0.5, 1, open_low=True)  # validation; None: every epoch
    renoise_min_alpha_bar: float = number(0, 0.999, open_low=True)  # where noise_conditioned
