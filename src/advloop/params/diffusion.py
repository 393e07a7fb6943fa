"""Parameters of the diffusion process and of its network."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from advloop.core.errors import UserError
from advloop.params.loader import Params
from advloop.params.section import Section

BETAS = {"linear": (1e-4, 0.02), "scaled_linear": (0.00085, 0.012)}  # usual first and last beta

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
Sampler = Literal["euler", "heun"]  # of first and of second order
PredictionType = Literal["epsilon", "v_prediction", "sample"]
Beta = Annotated[float, Field(gt=0, le=0.999)]
# more, and the last alpha_bar of the linear schedule is 0 in float32
Timesteps = Annotated[int, Field(ge=2, le=10_000)]


class VariancePreservingParams(Section):
    process: Literal["vp"]
    num_train_timesteps: Timesteps
    beta_schedule: BetaSchedule
    prediction_type: PredictionType
    beta_start: Beta | None = None  # None: the usual one of the schedule
    beta_end: Beta | None = None
    zero_terminal_snr: bool = False  # the last timestep is pure noise

    def betas(self) -> tuple[float, float] | None:
        """First and last beta, or None if the schedule does not interpolate between two."""
        if self.beta_schedule not in BETAS:
            return None
        start, end = BETAS[self.beta_schedule]
        return (
            start if self.beta_start is None else self.beta_start,
            end if self.beta_end is None else self.beta_end,
        )

    def max_alpha_bar(self) -> float:
        """alpha_bar of the first timestep, the least noisy one: 1 minus its beta."""
        if betas := self.betas():
            return 1 - betas[0]
        edges = (0.008, 1 / self.num_train_timesteps + 0.008)  # Nichol & Dhariwal 2021, Eq. 17
        start, first = (math.cos(edge / 1.008 * math.pi / 2) ** 2 for edge in edges)
        return max(first / start, 0.001)  # the beta is capped at 0.999

    def loses_x0(self) -> bool:
        """Whether samples depend on a division by almost 0: epsilon where the last alpha_bar is 0.

        The last beta of squaredcos_cap_v2 is capped at 0.999, so that alpha_bar ends at 2.4e-9
        (T = 1000). There the input is epsilon, which a network can predict without any knowledge of
        images, and x0 follows from it with 20,000 times its error. DDIM steps on from this x0 to an
        alpha_bar of 0.004: an error of 1 % gives samples of deviation 12. Lin et al. 2024,
        "Common Diffusion Noise Schedules and Sample Steps are Flawed", section 3.2: predict v.

        Samplers could begin at a less noisy timestep instead, as those of Karras et al. 2022 do
        (table 1, j0 of iDDPM), but diffusers' DDIMScheduler, with which others sample the exported
        model, cannot. linear and scaled_linear end at 4e-5 and 5e-3, and fall towards that slowly.
        """
        ends_at_zero = self.zero_terminal_snr or self.beta_schedule == "squaredcos_cap_v2"
        return self.prediction_type == "epsilon" and ends_at_zero


class FlowParams(Section):
    process: Literal["flow"]
    num_train_timesteps: Timesteps
    shift: Annotated[
        float, Field(gt=0, le=100)
    ]  # above 1: more of the noise levels near pure noise
    sampler: Sampler = "euler"

    def max_alpha_bar(self) -> float:
        """alpha_bar of the first timestep, with sigma = shift / (T + shift - 1)."""
        sigma = self.shift / (self.num_train_timesteps + self.shift - 1)
        return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)


class EdmParams(Section):
    process: Literal["edm"]
    num_train_timesteps: Timesteps  # equally likely noise levels of the training
    prediction_type: Literal["epsilon", "v_prediction"]  # the sign of the output, as in diffusers
    sigma_data: PositiveFloat  # deviation of the latents
    sigma_min: PositiveFloat  # the last and the first noise level of the sampler
    sigma_max: PositiveFloat
    rho: Annotated[float, Field(ge=1, le=100)]  # how the levels between them are spaced
    p_mean: float  # of log(sigma) in training
    p_std: PositiveFloat
    sampler: Sampler = "euler"

    def max_alpha_bar(self) -> float:
        """alpha_bar of the first timestep."""
        share = 0.5 / self.num_train_timesteps
        return 1 / (1 + math.exp(NormalDist(self.p_mean, self.p_std).inv_cdf(share)) ** 2)


DiffusionParams: TypeAlias = VariancePreservingParams | FlowParams | EdmParams
PROCESSES: dict[str, type[DiffusionParams]] = {
    "vp": VariancePreservingParams,
    "flow": FlowParams,
    "edm": EdmParams,
}


def read_diffusion(params: Params) -> DiffusionParams:
    """The section ``diffusion``, by the schema of the process that it names; or UserError."""
    section = params.unchecked("diffusion")
    name = section.get("process", "vp")
    if not isinstance(name, str) or name not in PROCESSES:
        problem = f"must be one of {', '.join(PROCESSES)}"
        raise params.fail("diffusion.process", name, problem, option="diffusion")
    for key in section:
        owners = [other for other, cls in PROCESSES.items() if key in cls.model_fields]
        if owners and name not in owners:
            raise UserError(
                f"{params.path}: diffusion.{key} does not belong to diffusion.process={name}, but "
                f"to {' and '.join(owners)}; choose a process as a whole, with `dvc exp run -S "
                f"diffusion={name}` or in the defaults of conf/config.yaml"
            )
    return params.section("diffusion", PROCESSES[name])


class UNetParams(Section):
    # one entry per level, highest resolution first
    block_out_channels: Annotated[list[PositiveInt], Field(min_length=1)]
    layers_per_block: PositiveInt
    attention_levels: list[NonNegativeInt]  # levels with self-attention; 0 is the highest
    norm_num_groups: PositiveInt  # must divide every channel count


class DiTParams(Section):
    patch_size: PositiveInt  # must divide the cells of the latents, each way
    num_layers: PositiveInt
    num_attention_heads: PositiveInt
    # of each head; all together a multiple of 4, for the embedding of positions
    attention_head_dim: PositiveInt
