"""Hand a checkpoint on as the folder of a diffusers pipeline.

The folder is that of diffusers' ``LDMPipeline``, its pipeline for latents without conditions:
unet/, scheduler/ and vqvae/, as it calls any autoencoder. It loads the folder where that draws
the same images as this project: where latents have no shift. A PatchAutoencoder is no class of
diffusers, which loads others only with ``trust_remote_code``: the file that defines it lies in
the folder, for the user to import and to hand to the pipeline.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advloop import patch_autoencoder
from advloop.autoencoder import save_autoencoder
from advloop.core.io import atomic_path, load_model, write_json
from advloop.model_folder import CLASSES, save_model_folder
from advloop.params.diffusion import BETAS, DiffusionParams
from advloop.params.imported_noise import FILE as SCHEDULER
from advloop.patch_autoencoder import PatchAutoencoder

AUTOENCODER = "vqvae"


class Export(NamedTuple):
    """All parts of a model, read and checked, so that writing them cannot fail half-way."""

    config: dict[str, Any]  # of the UNet2DModel
    weights: dict[str, torch.Tensor]  # EMA
    autoencoder: nn.Module
    scale: float
    shift: float
    diffusion: DiffusionParams
    classes: tuple[str, ...] = ()  # names in the order of their labels

    @property
    def autoencoder_class(self) -> str:
        return type(self.autoencoder).__name__

    @property
    def own_autoencoder(self) -> bool:
        return isinstance(self.autoencoder, PatchAutoencoder)

    @property
    def names_scale(self) -> bool:
        """False where the class has no scaling_factor, which its loader would then forget."""
        config: Any = self.autoencoder.config
        return self.own_autoencoder or "scaling_factor" in config

    @property
    def has_pipeline(self) -> bool:
        """True where LDMPipeline draws the very images: it knows the scale, no shift, no class."""
        return self.names_scale and self.shift == 0 and not self.classes

    @property
    def loads_by_itself(self) -> bool:
        """True where LDMPipeline needs no autoencoder from the user."""
        return self.has_pipeline and not self.own_autoencoder


def read_unet(checkpoint: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and EMA weights; UserError where the file is no checkpoint."""

    def parts(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return dict(content["config"]), {k: v.contiguous() for k, v in content["ema"].items()}

    return load_model(checkpoint, "checkpoint", parts)


def scheduler_config(params: DiffusionParams) -> dict[str, Any]:
    """That of a DDIMScheduler which takes the steps of ``sample_ddim``."""
    start, end = params.betas() or BETAS["linear"]  # of no meaning in any other schedule
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
        "rescale_betas_zero_snr": False,
    }


def export_pipeline(model: Export, folder: Path, card: str) -> None:
    """Write the folder; equal models make equal bytes.

    Its parts serve as ``base.pretrained`` and ``autoencoder.pretrained``, and so does the whole.
    """
    save_model_folder(folder / "unet", "UNet2DModel", model.config, model.weights)
    write_json(folder / "scheduler" / SCHEDULER, scheduler_config(model.diffusion))
    place = folder / AUTOENCODER
    save_autoencoder(place, model.autoencoder, model.scale, model.shift)
    if model.own_autoencoder:
        source = Path(patch_autoencoder.__file__)
        with atomic_path(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)
    parts = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    if model.loads_by_itself:  # without this entry LDMPipeline asks for one, and draws nothing else
        parts[AUTOENCODER] = ["diffusers", model.autoencoder_class]
    write_json(folder / "model_index.json", {"_class_name": "LDMPipeline", **parts})
    if model.classes:
        write_json(folder / CLASSES, list(model.classes))
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
