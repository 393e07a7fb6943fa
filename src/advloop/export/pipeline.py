"""Export a checkpoint as the folder of a diffusers pipeline.

Where diffusers has a pipeline for the parts (``plain``), the folder is one of it. diffusers' own
for unconditional latent diffusion, ``LDMPipeline``, is deprecated, and knows neither classes nor a
shift of latents. So any other folder holds a pipeline of this project, laid out alike: unet/,
scheduler/, and vqvae/ for any autoencoder. diffusers runs foreign code only with
``trust_remote_code``, so that the user imports it from the folder instead, after a look at it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advloop.core.files import copy_file, load_model, write_json, write_text
from advloop.data.latents import Scale
from advloop.export.plain import STABLE_DIFFUSION, plain_index, plain_pipeline
from advloop.export.schedulers import scheduler_config
from advloop.models import encode_texts, patch_autoencoder
from advloop.models.architectures import Architecture, architecture_of
from advloop.models.autoencoder import save_autoencoder
from advloop.models.folders import CLASSES, save_model_folder
from advloop.models.patch_autoencoder import PatchAutoencoder
from advloop.models.text_encoder import export_text_encoder
from advloop.params.captions import read_encoder
from advloop.params.diffusion import DiffusionParams, EdmParams
from advloop.params.schedulers import SCHEDULER

AUTOENCODER, SAMPLES = "vqvae", "samples.png"
# The file of the pipeline as it is called in the folder, and here, where it is not imported,
# because that would import diffusers.
CODE, SOURCE, PIPELINE = "pipeline.py", "latent_pipeline.py", "LatentPipeline"
AUTOENCODER_CODE, TEXT_CODE = "patch_autoencoder.py", "encode_texts.py"
OWN_FILES = {
    AUTOENCODER_CODE: Path(patch_autoencoder.__file__),
    TEXT_CODE: Path(encode_texts.__file__),
}


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
    text_encoder: Path | None = None  # the folder of it and its tokenizer, of a model of texts
    caption: str = ""  # one of the training images', as an example

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.config)

    @property
    def own_autoencoder(self) -> bool:
        return isinstance(self.autoencoder, PatchAutoencoder)

    @property
    def plain(self) -> str | None:
        """The pipeline of diffusers that loads the model, or None if there is none."""
        return plain_pipeline(
            self.config,
            self.autoencoder,
            (self.scale, self.shift),
            self.diffusion,
            self.guidance_scale,
            self.classes,
            read_encoder(self.text_encoder)[0] if self.text_encoder else None,
        )


def read_unet(checkpoint: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Configuration and EMA weights; UserError if the file is not a checkpoint."""

    def parts(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return dict(content["config"]), {k: v.contiguous() for k, v in content["ema"].items()}

    return load_model(checkpoint, "checkpoint", parts)


def export_pipeline(model: Export, folder: Path, card: str) -> None:
    """Write the folder: the same bytes for the same model.

    The folder or its parts can be another run's ``base.pretrained`` and ``autoencoder.pretrained``.
    """
    network, plain = model.architecture, model.plain
    config = {name: value for name, value in model.config.items() if name != "_class_name"}
    save_model_folder(folder / network.component, network.class_name, config, model.weights)
    scheduler = scheduler_config(model.diffusion)
    if plain == STABLE_DIFFUSION:  # which insists on it; trailing timesteps know no offset
        scheduler["steps_offset"] = 1
    write_json(folder / "scheduler" / SCHEDULER, scheduler)
    autoencoder = "vae" if plain else AUTOENCODER
    save_autoencoder(folder / autoencoder, model.autoencoder, model.scale, model.shift)
    index: dict[str, Any] = {
        network.component: ["diffusers", network.class_name],
        "scheduler": ["diffusers", scheduler["_class_name"]],
    }
    if model.text_encoder:
        index |= export_text_encoder(model.text_encoder, folder)
    index |= plain_index(plain, model.classes) if plain else _own_pipeline(model, folder)
    write_json(folder / "model_index.json", index)
    if model.classes:
        write_json(folder / CLASSES, list(model.classes))
    copy_file(model.samples, folder / SAMPLES)
    write_text(folder / "README.md", card)


def _own_pipeline(model: Export, folder: Path) -> dict[str, Any]:
    """Copy the code of this project's pipeline; what model_index.json says of it."""
    copy_file(Path(__file__).with_name(SOURCE), folder / CODE)
    for name in own_files(model):
        copy_file(OWN_FILES[name], folder / name)
    index: dict[str, Any] = {
        "_class_name": [CODE.removesuffix(".py"), PIPELINE],
        "num_inference_steps": model.num_inference_steps,
        "guidance_scale": model.guidance_scale,
        "classes": list(model.classes),
        "heun": isinstance(model.diffusion, EdmParams) and model.diffusion.sampler == "heun",
    }
    if not model.own_autoencoder:
        index[AUTOENCODER] = ["diffusers", type(model.autoencoder).__name__]
    return index


def own_files(model: Export) -> list[str]:
    """The names of the files that the code of this project's pipeline imports."""
    needed = {AUTOENCODER_CODE: model.own_autoencoder, TEXT_CODE: model.text_encoder is not None}
    return [name for name, wanted in needed.items() if wanted]
