"""diffusers' scheduler for each process."""

from __future__ import annotations

from typing import Any

from advloop.params.diffusion import BETAS, DiffusionParams, EdmParams, FlowParams


def scheduler_config(params: DiffusionParams) -> dict[str, Any]:
    """The configuration of a scheduler that takes the steps of ``Process.steps``.

    Of an EDM sampled by Heun's, for which diffusers has none, it has the noise levels alone.
    """
    if isinstance(params, FlowParams):
        return {
            "_class_name": f"FlowMatch{params.sampler.title()}DiscreteScheduler",
            "num_train_timesteps": params.num_train_timesteps,
            "shift": params.shift,
        }
    if isinstance(params, EdmParams):
        names = ("num_train_timesteps", "prediction_type", "sigma_data", "sigma_min", "sigma_max")
        values = {name: getattr(params, name) for name in (*names, "rho")}
        return {"_class_name": "EDMEulerScheduler", **values}
    start, end = params.betas() or BETAS["linear"]  # ignored by schedules without betas
    return {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": params.num_train_timesteps,
        "beta_schedule": params.beta_schedule,
        "beta_start": start,
        "beta_end": end,
        "prediction_type": params.prediction_type,
        "timestep_spacing": "trailing",
        "steps_offset": 0,
        "set_alpha_to_one": True,
        "clip_sample": False,
        "thresholding": False,
        "rescale_betas_zero_snr": params.zero_terminal_snr,
    }
