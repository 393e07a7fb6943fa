"""Export a checkpoint as the folder of a diffusers pipeline.

The folder is laid out for ``LDMPipeline``, diffusers' pipeline for unconditional latent diffusion:
unet/, scheduler/ and vqvae/, its name for any autoencoder. The pipeline can load the folder only if
it samples the same images as this project, which needs latents without a shift. PatchAutoencoder
is not a class of diffusers, which runs foreign code only with ``trust_remote_code``; so the folder
holds the file that defines it, for the user to import and to pass to the pipeline.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advloop.core.files import atomic_path, load_model, write_json
from advloop.export.schedulers import scheduler_config
from advloop.models import patch_autoencoder
from advloop.models.architectures import UNET, Architecture, architecture_of
from advloop.models.autoencoder import save_autoencoder
from advloop.models.folders import CLASSES, save_model_folder
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.params.diffusion import DiffusionParams
from advloop.params.schedulers import SCHEDULER

AUTOENCODER = "vqvae"


class Export(NamedTuple):
    """All parts of a model, read and checked before anything is written."""

    config: dict[str, Any]  # of the network, as in a checkpoint
    weights: dict[str, torch.Tensor]  # EMA
    autoencoder: nn.Module
    scale: float
    shift: float
    diffusion: DiffusionParams
    classes: tuple[str, ...] = ()  # names in the order of their labels

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.config)

    @property
    def autoencoder_class(self) -> str:
        return type(self.autoencoder).__name__

    @property
    def own_autoencoder(self) -> bool:
        return isinstance(self.autoencoder, PatchAutoencoder)

    @property
    def names_scale(self) -> bool:
        """Whether the autoencoder's config can hold the scale, as scaling_factor."""
        config: Any = self.autoencoder.config
        return self.own_autoencoder or "scaling_factor" in config

    @property
    def has_pipeline(self) -> bool:
        """Whether LDMPipeline samples the same images: it knows a scale, no shift, no class.

        It knows U-Nets and the variance-preserving process alone.
        """
        pair = (self.architecture.class_name, self.diffusion.process)
        known = self.names_scale and pair == (UNET, "vp")
        return known and self.shift == 0 and not self.classes

    @property
    def loads_by_itself(self) -> bool:
        """Whether LDMPipeline needs no autoencoder from the user."""
        return self.has_pipeline and not self.own_autoencoder


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
    place = folder / AUTOENCODER
    save_autoencoder(place, model.autoencoder, model.scale, model.shift)
    if model.own_autoencoder:
        source = Path(patch_autoencoder.__file__)
        with atomic_path(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)
    classes = {network.component: network.class_name, "scheduler": scheduler["_class_name"]}
    parts = {name: ["diffusers", class_name] for name, class_name in classes.items()}
    if model.loads_by_itself:  # without this entry, LDMPipeline asks the user for an autoencoder
        parts[AUTOENCODER] = ["diffusers", model.autoencoder_class]
    write_json(folder / "model_index.json", {"_class_name": "LDMPipeline", **parts})
    if model.classes:
        write_json(folder / CLASSES, list(model.classes))
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(card, encoding="utf-8")
