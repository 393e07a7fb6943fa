"""The process that a run's parameters describe."""

from __future__ import annotations

from advloop.diffusion.edm import make_edm
from advloop.diffusion.flow import make_flow
from advloop.diffusion.process import Process
from advloop.diffusion.variance_preserving import (
    VariancePreserving,
    make_alphas_cumprod,
    with_zero_terminal_snr,
)
from advloop.params.diffusion import DiffusionParams, EdmParams, FlowParams


def process_of(params: DiffusionParams) -> Process:
    """The process of section ``diffusion``, on the CPU."""
    if isinstance(params, FlowParams):
        return make_flow(params)
    if isinstance(params, EdmParams):
        return make_edm(params)
    alpha_bars = make_alphas_cumprod(
        params.beta_schedule, params.num_train_timesteps, params.betas()
    )
    if params.zero_terminal_snr:
        alpha_bars = with_zero_terminal_snr(alpha_bars)
    return VariancePreserving(alpha_bars, params.prediction_type)
