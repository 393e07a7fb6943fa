"""The denoiser: noisy latents, time and labels to a prediction; and its checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.files import load_model, save_torch
from advloop.core.random import seeded
from advloop.models.adapters import adapters_of, add_adapter, merged_state, scale_adapter
from advloop.models.architectures import DIT, architecture_of
from advloop.models.caption_table import CaptionTable
from advloop.params.diffusion import DiTParams, UNetParams

Weights = Mapping[str, torch.Tensor]


class Denoiser(nn.Module):
    """A network of diffusers with the ``config`` that builds it again.

    If the network also predicts a variance (``out_channels`` twice ``in_channels``), that half of
    its last layer is kept aside, out of training, averages and predictions: ``weights`` puts the
    layer together again.

    captions: the embeddings of a run's captions, which a network of texts needs, and no checkpoint
    holds. Its classes are these captions.
    """

    captions: CaptionTable | None = None

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = dict(config)
        self.architecture = architecture_of(config)
        own = {name: value for name, value in config.items() if name != "_class_name"}
        if self.learns_sigma:
            own["out_channels"] = config["in_channels"]
        self.network = self.architecture.build(own)
        for part, tensor in self._head().items() if self.learns_sigma else ():
            self.register_buffer(f"sigma_{part}", torch.zeros_like(tensor.detach()))

    @property
    def learns_sigma(self) -> bool:
        """Whether the network has outputs for a variance, too."""
        channels = self.config.get("in_channels")
        return channels is not None and self.config.get("out_channels") == 2 * channels

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the latents that it denoises."""
        size = self.config["sample_size"]
        return self.config["in_channels"], size, size

    @property
    def num_classes(self) -> int:
        """Number of classes that it is conditioned on; 0 if it is unconditional."""
        return self.captions.count if self.captions else self.architecture.num_classes(self.config)

    @property
    def null_label(self) -> int | None:
        """The label of no class, for a training that drops labels; None if there is none."""
        return self.captions.count if self.captions else self.architecture.null_label(self.config)

    def forward(
        self, noisy: torch.Tensor, time: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Output (B, C, H, W) float32, which means what the network's diffusion process says.

        noisy: (B, C, H, W) and time: (B,), as ``Process.inputs`` gives them; labels: (B,) int, for
        a network of classes or captions alone.
        """
        given = labels if self.captions is None or labels is None else self.captions(labels)
        return self.architecture.predict(self.network, noisy.contiguous(), time, given).float()

    def add_adapter(self, rank: int, *key: int | str) -> str:
        """Freeze all weights and put a low-rank adapter beside them: ``adapters.add_adapter``."""
        return add_adapter(self.network, self.architecture.adapted, rank, *key)

    def _head(self) -> dict[str, torch.Tensor]:
        return dict(self.network.get_submodule(self.architecture.head).named_parameters())

    def _rows(self) -> torch.Tensor:
        return torch.tensor(self.architecture.predicted_rows(self.config))

    def weights(self) -> dict[str, torch.Tensor]:
        """All weights of the network by diffusers' names, on the CPU; an adapter is merged."""
        state = merged_state(self.network)
        found = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        if self.learns_sigma:
            rows = self._rows()
            for part in self._head():
                name, aside = f"{self.architecture.head}.{part}", getattr(self, f"sigma_{part}")
                whole = found[name].new_empty(len(rows), *found[name].shape[1:])
                whole[rows], whole[~rows] = found[name], aside.cpu()
                found[name] = whole
        return found

    def load_weights(self, weights: Weights) -> None:
        """Take ``weights`` by diffusers' names; raises RuntimeError unless they fit exactly."""
        state = dict(weights)
        if self.learns_sigma:
            rows = self._rows()
            for part in self._head():
                name = f"{self.architecture.head}.{part}"
                if name not in state or len(state[name]) != len(rows):
                    raise RuntimeError(f"{name} is missing or not of {len(rows)} rows")
                getattr(self, f"sigma_{part}").copy_(state[name][~rows])
                state[name] = state[name][rows]
        self.network.load_state_dict(state)


def unet_config(
    params: UNetParams, channels: int, size: int, num_classes: int = 0
) -> dict[str, Any]:
    """Arguments of UNet2DModel for latents (channels, size, size); num_classes=0: unconditional."""
    levels = len(params.block_out_channels)
    attention = [level in params.attention_levels for level in range(levels)]
    config = {
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "block_out_channels": list(params.block_out_channels),
        "layers_per_block": params.layers_per_block,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        "norm_num_groups": params.norm_num_groups,
    }
    return config | ({"num_class_embeds": num_classes} if num_classes else {})


def dit_config(params: DiTParams, channels: int, size: int, num_classes: int = 0) -> dict[str, Any]:
    """The same for DiTTransformer2DModel."""
    return {
        "_class_name": DIT,
        "sample_size": size,
        "in_channels": channels,
        "out_channels": channels,
        "patch_size": params.patch_size,
        "num_layers": params.num_layers,
        "num_attention_heads": params.num_attention_heads,
        "attention_head_dim": params.attention_head_dim,
        "num_embeds_ada_norm": max(1, num_classes),
    }


def denoiser_config(
    params: UNetParams | DiTParams, channels: int, size: int, num_classes: int = 0
) -> dict[str, Any]:
    """The config of the network that ``params`` describe."""
    make = dit_config if isinstance(params, DiTParams) else unet_config
    return make(params, channels, size, num_classes)  # type: ignore[arg-type]  # of its own class


def build_denoiser(config: Mapping[str, Any], seed: int) -> Denoiser:
    """A freshly initialised network; the same seed gives the same weights."""
    with seeded(seed, "unet"):
        denoiser = Denoiser(config)
        denoiser.architecture.initialise(denoiser.network)
    return denoiser


def save_checkpoint(path: Path, ema: Denoiser, model: Denoiser | None = None) -> None:
    """Write the EMA weights, which later stages use, and the raw ones of ``model`` if given."""
    content = {"config": ema.config, "ema": ema.weights()}
    if model is not None:
        content["model"] = model.weights()
    save_torch(path, content)


def load_checkpoint(path: Path) -> Denoiser:
    """The network of a checkpoint, with its EMA weights; UserError if the file is unusable."""

    def build(content: dict[str, Any]) -> Denoiser:
        denoiser = Denoiser(content["config"])
        denoiser.load_weights(content["ema"])
        return denoiser

    return load_model(path, "checkpoint", build)


def copy_of(denoiser: Denoiser) -> Denoiser:
    """A copy of the network that shares its frozen weights, those without gradients."""
    shared = {id(weight): weight for weight in denoiser.parameters() if not weight.requires_grad}
    return copy.deepcopy(denoiser, shared)


def frozen_copy(denoiser: Denoiser) -> Denoiser:
    """As ``copy_of``, with all weights frozen, in evaluation mode."""
    return copy_of(denoiser).requires_grad_(False).eval()


def scaled_adapter(denoiser: Denoiser, factor: float) -> Denoiser | None:
    """A frozen copy whose adapter does ``factor`` times as much; None if it has no adapter."""
    if not any(adapters_of(denoiser.network)):
        return None
    scaled = frozen_copy(denoiser)
    scale_adapter(scaled.network, factor)
    return scaled


def check_latents(path: Path, denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    """Raise UserError unless the network denoises latents of ``shape`` (C, H, W)."""
    if tuple(shape) != denoiser.latent_shape:
        raise UserError(
            f"{path}: denoises latents {list(denoiser.latent_shape)}, but this run's are "
            f"{list(shape)}; adapt autoencoder.latent_channels and data.image_size, or the model"
        )


def check_guidance(path: Path, denoiser: Denoiser, num_classes: int, scale: float) -> None:
    """Raise UserError if classifier-free guidance of this scale needs what is not there."""
    if scale == 1:
        return
    if num_classes == 0:
        problem = "this run's images have no classes"
    elif denoiser.null_label is None:
        problem = f"a {denoiser.architecture.class_name} has no label for no class"
    else:
        return
    raise UserError(
        f"{path}: cannot be sampled with guidance_scale={scale}, because {problem}; use "
        "generate.guidance_scale=1.0 (and evaluate.guidance_scale, if it is set by itself)"
    )


def check_classes(path: Path, denoiser: Denoiser, num_classes: int) -> None:
    """Raise UserError unless the network is conditioned on ``num_classes`` (0: unconditional).

    One with a label for no class can be used without classes.
    """
    if denoiser.num_classes == num_classes:
        return
    if num_classes == 0 and denoiser.null_label is not None:
        return
    raise UserError(
        f"{path}: knows {denoiser.num_classes} classes, but this run's images have "
        f"{num_classes}; set data.classes to match, or train a base model "
        "(base.pretrained=null)"
    )
