"""Parameters of the base model, of the rounds and of the discriminator."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from advloop.core.errors import counted
from advloop.params.section import Section

AlphaBar = Annotated[float, Field(gt=0, le=0.999)]
GuidanceScale = Annotated[float, Field(ge=0, le=100)]


class TrainingParams(Section):
    """A training of the diffusion model: the base model's, or a round's."""

    epochs: PositiveInt
    samples_per_epoch: PositiveInt | None  # None: every training latent once
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    ema_decay: Annotated[float, Field(ge=0, le=0.99999)]
    grad_clip: PositiveFloat  # largest global gradient norm
    eval_interval: PositiveInt  # epochs between two validations

    def total_steps(self, rows: int) -> int:
        """Optimizer steps of the whole training. rows: the number of training latents."""
        return self.epochs * math.ceil((self.samples_per_epoch or rows) / self.batch_size)

    def warmup_problem(self, rows: int) -> str | None:
        """Why a training on ``rows`` latents cannot have this warm-up, or None if it can.

        The learning rate would not reach ``learning_rate``, and the cosine after it never begin.
        """
        steps = self.total_steps(rows)
        if self.warmup_steps < max(1, steps):
            return None
        whole = counted(steps, "step")
        return f"leaves nothing of the training, which has {whole}; use less, or more epochs"


class BaseParams(TrainingParams):
    pretrained: str | None  # local diffusers folder or state dict, or None to train
    trained_as: Literal["vp", "flow", "edm"] | None = None  # what it is, if no scheduler says it


NEEDS_PEFT = (  # said of train_diffusion.lora_rank
    "needs the package peft, which is not installed; run `uv sync --extra lora`, or set "
    "train_diffusion.lora_rank=null"
)


class TrainDiffusionParams(TrainingParams):
    lora_rank: PositiveInt | None = None  # of an adapter, which alone is trained; None: everything
    sample_interval: PositiveInt  # epochs between two sample grids
    num_preview_samples: PositiveInt
    preview_steps: PositiveInt  # spaced over num_train_timesteps


class DiscriminatorParams(Section):
    noise_conditioned: bool  # judges re-noised latents, given their timestep
    # one entry per level; each level halves the resolution
    channels: Annotated[list[PositiveInt], Field(min_length=1)]
    dropout: Annotated[float, Field(ge=0, le=0.99)]
    statistics: bool = False  # a network on statistics of the latents beside the convolutions


MAX_OTHER_FAKES = 0.9  # of the fake class: at least a tenth are the current model's own samples
FakeFraction = Annotated[float, Field(ge=0, le=MAX_OTHER_FAKES)]


class TrainDiscParams(Section):
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    plateau_factor: Annotated[float, Field(gt=0, le=0.99)]
    plateau_patience: NonNegativeInt  # epochs without a better validation loss
    predicted_fraction: FakeFraction  # fakes that are one-step predictions
    replay_fraction: FakeFraction  # training fakes of earlier iterations
    r1_weight: NonNegativeFloat  # of the squared gradient at the reals, beside the loss
    r1_sigma: PositiveFloat  # its finite difference, in scaled units
    # accuracy on validation data that ends the training; None: train every epoch
    stop_accuracy: Annotated[float, Field(gt=0.5, le=1)] | None
    renoise_min_alpha_bar: AlphaBar  # noise_conditioned: re-noises no further
    loss: Literal["bce", "relativistic"] = "bce"  # of each row, or of pairs
    r2_weight: NonNegativeFloat = 0.0  # as r1_weight, at the fakes; relativistic alone


MIN_SAMPLES = 3  # of fewer, none would validate the discriminator: a fifth, rounded


class GenerateParams(Section):
    num_samples: Annotated[int, Field(ge=MIN_SAMPLES)]
    num_inference_steps: PositiveInt
    batch_size: PositiveInt
    predicted_min_alpha_bar: AlphaBar  # of one-step predictions
    guidance_scale: GuidanceScale = 1.0  # of classifier-free guidance; 1: none
