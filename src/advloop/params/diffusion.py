"""Parameters of the diffusion process and of its network."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from advloop.params.section import Section

BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}  # usual first and last beta

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
Beta = Annotated[float, Field(gt=0, le=0.999)]


class DiffusionParams(Section):
    # more, and the last alpha_bar of the linear schedule is 0 in float32
    num_train_timesteps: Annotated[int, Field(ge=2, le=10_000)]
    beta_schedule: BetaSchedule
    prediction_type: PredictionType
    beta_start: Beta | None = None  # None: the usual one of the schedule
    beta_end: Beta | None = None

    def betas(self) -> tuple[float, float] | None:
        """First and last beta, or None if the schedule does not interpolate between two."""
        if self.beta_schedule not in BETAS:
            return None
        start, end = BETAS[self.beta_schedule]
        return (
            start if self.beta_start is None else self.beta_start,
            end if self.beta_end is None else self.beta_end,
        )


class UNetParams(Section):
    # one entry per level, highest resolution first
    block_out_channels: Annotated[list[PositiveInt], Field(min_length=1)]
    layers_per_block: PositiveInt
    attention_levels: list[NonNegativeInt]  # levels with self-attention; 0 is the highest
    norm_num_groups: PositiveInt  # must divide every channel count
