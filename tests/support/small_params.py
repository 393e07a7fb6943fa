"""The diffusion process of most tests, and parameters of small models."""

from __future__ import annotations

from advloop.params.data import AutoencoderParams, DataParams
from advloop.params.diffusion import (
    EdmParams,
    FlowParams,
    UNetParams,
    VariancePreservingParams,
)

DATA = DataParams(
    source="images",
    on_error="skip",
    resize="crop",
    image_size=16,
    tiles=1,
    max_flat=1.0,
    val_fraction=0.2,
    test_fraction=0.2,
    tune_fraction=0.4,
    split_seed=0,
)
UNET = UNetParams(
    block_out_channels=[8, 16], layers_per_block=1, attention_levels=[], norm_num_groups=4
)
AUTOENCODER = AutoencoderParams(
    pretrained=None,
    latent_channels=4,
    factor=2,
    width=8,
    encoder_blocks=1,
    decoder_blocks=1,
    epochs=1,
    batch_size=8,
    learning_rate=1e-3,
    l1_weight=0.3,
    latent_noise=0.1,
)

FLOW = FlowParams(process="flow", num_train_timesteps=1000, shift=3.0)
EDM = EdmParams(
    process="edm",
    num_train_timesteps=1000,
    prediction_type="epsilon",
    sigma_data=0.5,
    sigma_min=0.002,
    sigma_max=80.0,
    rho=7.0,
    p_mean=-1.2,
    p_std=1.2,
)

HEUN_FLOW, HEUN_EDM = (params.model_copy(update={"sampler": "heun"}) for params in (FLOW, EDM))


def diffusion_params(
    prediction_type: str = "v_prediction",
    beta_schedule: str = "squaredcos_cap_v2",
    num_train_timesteps: int = 1000,
    **more: float | None,
) -> VariancePreservingParams:
    return VariancePreservingParams(
        process="vp",
        num_train_timesteps=num_train_timesteps,
        beta_schedule=beta_schedule,
        prediction_type=prediction_type,
        **more,
    )
