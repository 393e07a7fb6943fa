"""Export a checkpoint as the folder of a diffusers pipeline.

diffusers' own pipeline for unconditional latent diffusion, ``LDMPipeline``, is deprecated, and
knows neither classes nor a shift of latents. So the folder holds a pipeline of this project, laid
out alike: unet/, scheduler/, and vqvae/ for any autoencoder. diffusers runs foreign code only with
``trust_remote_code``, so that the user imports it from the folder instead, after a look at it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advloop.core.files import copy_file, load_model, write_json, write_text
from advloop.data.latents import Scale
from advloop.export.schedulers import scheduler_config
from advloop.models import patch_autoencoder
from advloop.models.architectures import Architecture, architecture_of
from advloop.models.autoencoder import save_autoencoder
from advloop.models.folders import CLASSES, save_model_folder
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.params.diffusion import DiffusionParams, EdmParams
from advloop.params.schedulers import SCHEDULER

AUTOENCODER, SAMPLES = "vqvae", "samples.png"
# The file of the pipeline as it is called in the folder, and here, where it is not imported,
# because that would import diffusers.
CODE, SOURCE, PIPELINE = "pipeline.py", "latent_pipeline.py", "LatentPipeline"


class Export(NamedTuple):
    """All parts of a model, read and checked before anything is written."""

    config: dict[str, Any]  # of the network, as in a checkpoint
    weights: dict[str, torch.Tensor]  # EMA
    autoencoder: nn.Module
    scale: Scale
    shift: Scale
    diffusion: DiffusionParams
    num_inference_steps: int  # that samples take
    guidance_scale: float  # of classifier-free guidance; 1: none
    samples: Path  # a picture of them
    classes: tuple[str, ...] = ()  # names in the order of their labels

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.config)

    @property
    def own_autoencoder(self) -> bool:
        return isinstance(self.autoencoder, PatchAutoencoder)


def read_unet(checkpoint: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and EMA weights; UserError if the file is not a checkpoint."""

    def parts(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return dict(content["config"]), {k: v.contiguous() for k, v in content["ema"].items()}

    return load_model(checkpoint, "checkpoint", parts)


def export_pipeline(model: Export, folder: Path, card: str) -> None:
    """Write the folder: the same bytes for the same model.

    The folder or its parts can be another run's ``base.pretrained`` and ``autoencoder.pretrained``.
    """
    network = model.architecture
    config = {name: value for name, value in model.config.items() if name != "_class_name"}
    save_model_folder(folder / network.component, network.class_name, config, model.weights)
    scheduler = scheduler_config(model.diffusion)
    write_json(folder / "scheduler" / SCHEDULER, scheduler)
    save_autoencoder(folder / AUTOENCODER, model.autoencoder, model.scale, model.shift)
    index: dict[str, Any] = {
        "_class_name": [CODE.removesuffix(".py"), PIPELINE],
        network.component: ["diffusers", network.class_name],
        "scheduler": ["diffusers", scheduler["_class_name"]],
        "num_inference_steps": model.num_inference_steps,
        "guidance_scale": model.guidance_scale,
        "classes": list(model.classes),
        "heun": isinstance(model.diffusion, EdmParams) and model.diffusion.sampler == "heun",
    }
    copy_file(Path(__file__).with_name(SOURCE), folder / CODE)
    if model.own_autoencoder:
        source = Path(patch_autoencoder.__file__)
        copy_file(source, folder / source.name)
    else:
        index[AUTOENCODER] = ["diffusers", type(model.autoencoder).__name__]
    write_json(folder / "model_index.json", index)
    if model.classes:
        write_json(folder / CLASSES, list(model.classes))
    copy_file(model.samples, folder / SAMPLES)
    write_text(folder / "README.md", card)
