"""Every section of params.yaml, and the checks that span sections."""

from __future__ import annotations

from typing import Any

from advloop.core.errors import UserError
from advloop.params import adversarial, data, diffusion, discriminator, evaluation, sampling
from advloop.params.loader import Params
from advloop.params.objectives import read_objective
from advloop.params.run import read_num_iterations, read_precision, read_seed

SECTIONS: dict[str, type] = {
    "data": data.DataParams,
    "autoencoder": data.AutoencoderParams,
    "encode_dataset": data.EncodeDatasetParams,
    "diffusion": diffusion.DiffusionParams,
    "unet": diffusion.UNetParams,
    "base": diffusion.BaseParams,
    "generate": sampling.GenerateParams,
    "encode": sampling.EncodeParams,
    "discriminator": discriminator.DiscriminatorParams,
    "train_disc": discriminator.TrainDiscParams,
    "train_diffusion": adversarial.TrainDiffusionParams,
    "evaluate": evaluation.EvaluateParams,
}
SCALARS = ("scale", "exp_name", "seed", "num_iterations", "precision", "objective", "derived")


def check_params(params: Params) -> None:
    """Raise UserError where a value is unknown, missing, out of range or contradicts another."""
    for key in map(str, params.content):
        if key not in SECTIONS and key not in SCALARS:
            raise UserError(f"{params.path}: {key} is not a parameter; run `make params`")
    params.value("scale", str)
    params.value("exp_name", str)
    read_seed(params)
    read_num_iterations(params)
    read_precision(params)
    read_objective(params)
    sections: dict[str, Any] = {name: params.section(name, cls) for name, cls in SECTIONS.items()}
    if not sections["data"].source.strip():  # which would be the project's own folder
        raise params.fail("data.source", "", "must name a folder or an archive")
    _check_shapes(params, sections)
    _check_steps(params, sections)
    _check_betas(params, sections["diffusion"])
    _check_fakes(params, sections["train_disc"])


def _check_shapes(params: Params, sections: dict[str, Any]) -> None:
    size, factor = sections["data"].image_size, sections["autoencoder"].factor
    if size % factor:
        raise params.fail("data.image_size", size, f"must be a multiple of the factor {factor}")
    autoencoder: data.AutoencoderParams = sections["autoencoder"]
    if autoencoder.latent_channels > 3 * factor**2:
        raise params.fail(
            "autoencoder.latent_channels",
            autoencoder.latent_channels,
            f"exceeds the {3 * factor**2} values of a patch of factor {factor}",
        )
    unet: diffusion.UNetParams = sections["unet"]
    for key, levels in (
        ("unet.block_out_channels", unet.block_out_channels),
        ("discriminator.channels", sections["discriminator"].channels),
    ):
        if not levels:
            raise params.fail(key, levels, "must name at least one level")
    halvings = 2 ** (len(unet.block_out_channels) - 1)
    if (size // factor) % halvings:
        raise params.fail(
            "unet.block_out_channels",
            unet.block_out_channels,
            f"has {len(unet.block_out_channels)} levels, but latents of {size // factor} cells "
            f"a side cannot be halved {len(unet.block_out_channels) - 1} times",
        )
    for channels in unet.block_out_channels:
        if channels % unet.norm_num_groups:
            raise params.fail(
                "unet.norm_num_groups", unet.norm_num_groups, f"must divide {channels} channels"
            )
    for level in unet.attention_levels:
        if level >= len(unet.block_out_channels):
            raise params.fail("unet.attention_levels", level, "names a level that is not there")
    depth = len(sections["discriminator"].channels)
    if 2**depth > size // factor:
        raise params.fail(
            "discriminator.channels",
            sections["discriminator"].channels,
            f"halves {depth} times, but latents are {size // factor} cells a side",
        )


def _check_steps(params: Params, sections: dict[str, Any]) -> None:
    limit = sections["diffusion"].num_train_timesteps
    for key in ("generate.num_inference_steps", "evaluate.num_inference_steps"):
        section, name = key.split(".")
        if (steps := getattr(sections[section], name)) > limit:
            raise params.fail(key, steps, f"exceeds the {limit} training timesteps")
    training: adversarial.TrainDiffusionParams = sections["train_diffusion"]
    if training.preview_steps > limit:
        raise params.fail(
            "train_diffusion.preview_steps",
            training.preview_steps,
            f"exceeds the {limit} training timesteps",
        )


def _check_betas(params: Params, process: diffusion.DiffusionParams) -> None:
    betas = process.betas()
    for key in ("beta_start", "beta_end"):
        value = getattr(process, key)
        if value is not None and betas is None:
            raise params.fail(
                f"diffusion.{key}", value, f"has no meaning in {process.beta_schedule}; use null"
            )
    if betas is not None and betas[0] > betas[1]:
        raise params.fail("diffusion.beta_start", betas[0], f"exceeds beta_end={betas[1]}")


def _check_fakes(params: Params, training: discriminator.TrainDiscParams) -> None:
    most = discriminator.MAX_OTHER_FAKES
    if training.predicted_fraction + training.replay_fraction > most + 1e-9:  # 0.7 + 0.2 rounds
        raise params.fail(
            "train_disc.replay_fraction",
            training.replay_fraction,
            f"and train_disc.predicted_fraction={training.predicted_fraction} make more than "
            f"{most} of the fakes together",
        )
