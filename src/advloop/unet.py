"""The denoising network: a diffusers UNet2DModel, and its checkpoints."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import nn

from advloop.core.errors import UserError
from advloop.core.io import all_finite, load_model, load_torch, save_torch
from advloop.core.runtime import seeded
from advloop.model_folder import check_class_names, component, load_weights
from advloop.params.diffusion import DiffusionParams, UNetParams
from advloop.params.imported_noise import check_scheduler
from advloop.sampling import Model


class GroupNorm32(nn.GroupNorm):
    """Group normalisation with float32 statistics, of any input's type and with its output.

    Under autocast a GPU would return float32, twice the memory for all that follows. A CPU's
    kernel takes bfloat16, adds up in float32 and returns bfloat16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        return super().forward(x.float()).to(x.dtype)


def _normalise_in_float32(network: nn.Module) -> None:
    """Make each group normalisation of ``network`` a GroupNorm32, weights' names as before."""
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if type(norm) is nn.GroupNorm:
                exact = GroupNorm32(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
                setattr(parent, name, exact)


def layout(where: torch.device) -> torch.memory_format:
    """Of activations and kernels: what the convolutions of ``where`` are quickest in.

    Tensor cores want channels last; for a CPU's norms see benchmarks/variants.py.
    """
    return torch.contiguous_format if where.type == "cpu" else torch.channels_last


class Denoiser(nn.Module):
    """``unet(noisy, timesteps) -> output`` with the configuration that builds it again.

    A class-conditional one wants labels beside them.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.unet = UNet2DModel(**config)
        _normalise_in_float32(self.unet)

    def placed(self, where: torch.device) -> Denoiser:
        """Itself, on that device and in its layout."""
        self.to(where)
        self.unet.to(memory_format=layout(where))
        return self

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents that it denoises."""
        size = self.config["sample_size"]
        return self.config["in_channels"], size, size

    @property
    def num_classes(self) -> int:
        """How many classes it is told of; 0 where it is not class-conditional."""
        return self.config.get("num_class_embeds") or 0

    def forward(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """noisy: (B, C, H, W); timesteps: (B,) int; labels: (B,) int in [0, num_classes).

        Returns (B, C, H, W) float32.
        """
        noisy = noisy.contiguous(memory_format=layout(noisy.device))
        told = {} if labels is None else {"class_labels": labels}
        output: torch.Tensor = self.unet(noisy, timesteps, return_dict=False, **told)[0]
        return output.float()


def told(denoiser: nn.Module, labels: torch.Tensor | None) -> Model:
    """The network with its labels (B,) given, for a sampler, which knows none."""
    if labels is None:
        return denoiser
    return lambda noisy, timesteps: denoiser(noisy, timesteps, labels)


def unet_config(
    params: UNetParams, channels: int, size: int, num_classes: int = 0
) -> dict[str, Any]:
    """Arguments of UNet2DModel for latents (channels, size, size), told of classes or of none."""
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


def build_unet(config: dict[str, Any], seed: int) -> Denoiser:
    """A freshly initialised network; the same seed gives the same weights."""
    with seeded(seed, "unet"):
        return Denoiser(config)


def save_checkpoint(path: Path, ema: Denoiser, model: Denoiser | None = None) -> None:
    """The EMA weights, which are handed on, and the raw ones where training may go on."""
    content = {"config": ema.config, "ema": _weights(ema)}
    if model is not None:
        content["model"] = _weights(model)
    save_torch(path, content)


def _weights(denoiser: Denoiser) -> dict[str, torch.Tensor]:
    state = denoiser.unet.state_dict()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def load_checkpoint(path: Path) -> Denoiser:
    """The network of a checkpoint with its EMA weights, the ones that are handed on."""

    def build(content: dict[str, Any]) -> Denoiser:
        denoiser = Denoiser(content["config"])
        denoiser.unet.load_state_dict(content["ema"])
        return denoiser

    return load_model(path, "checkpoint", build)


def frozen_copy(denoiser: Denoiser) -> Denoiser:
    """The same weights without gradients, in evaluation mode."""
    return copy.deepcopy(denoiser).requires_grad_(False).eval()


def check_latents(path: Path, denoiser: Denoiser, shape: tuple[int, ...]) -> None:
    """Raise UserError where latents (C, H, W) are not what the network denoises."""
    if tuple(shape) != denoiser.latent_shape:
        raise UserError(
            f"{path}: denoises latents {list(denoiser.latent_shape)}, but this run's are "
            f"{list(shape)}; adapt autoencoder.latent_channels and data.image_size, or the model"
        )


def check_classes(path: Path, denoiser: Denoiser, num_classes: int) -> None:
    """Raise UserError where the network is not told of as many classes as the images have."""
    if denoiser.num_classes != num_classes:
        raise UserError(
            f"{path}: knows {denoiser.num_classes} classes, but this run's images have "
            f"{num_classes}; set data.classes accordingly, or train a base model "
            "(base.pretrained=null)"
        )


def import_unet(folder: Path, shape: tuple[int, int, int]) -> Denoiser:
    """A local diffusers UNet2DModel folder (config.json, safetensors), checked for ``shape``.

    Raises UserError when it is missing, damaged, of another class or another shape.
    """
    try:
        if not (folder / "config.json").is_file():
            raise ValueError("it holds no config.json")  # diffusers would ask a hub for it
        name = UNet2DModel.load_config(folder, local_files_only=True).get("_class_name")
        if name != "UNet2DModel":
            raise ValueError(f"its class is {name}, not UNet2DModel")
        unet, loading = UNet2DModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            low_cpu_mem_usage=False,  # otherwise it asks for accelerate in four lines
        )
        if loading["missing_keys"] or loading["unexpected_keys"] or loading["mismatched_keys"]:
            raise ValueError("its weights are not those of its config.json")
        if unet.config["class_embed_type"] is not None:
            raise ValueError(f"its classes are no numbers: {unet.config['class_embed_type']}")
        if unet.config["out_channels"] != unet.config["in_channels"]:
            raise ValueError("its out_channels differ from its in_channels")
        if unet.config["time_embedding_type"] == "fourier":
            raise ValueError("it is told noise levels (fourier), not timesteps")
        if not all_finite(unet.state_dict()):
            raise ValueError("its weights hold NaN or infinity")
    except Exception as error:  # a foreign folder can fail in any way; each is bad input
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"base.pretrained={folder}: cannot be loaded ({reason}); name a diffusers UNet2DModel "
            "folder with config.json and safetensors, or null to train from scratch"
        ) from None
    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    if config["sample_size"] is None or config["sample_size"] == list(shape[1:]):
        config["sample_size"] = shape[1]  # nothing in the network depends on it
    denoiser = Denoiser(config)
    denoiser.unet.load_state_dict(unet.state_dict())
    check_latents(Path(f"base.pretrained={folder}"), denoiser, shape)
    return denoiser


def import_base(
    path: Path,
    shape: tuple[int, int, int],
    params: UNetParams,
    process: DiffusionParams,
    classes: Sequence[str] = (),
) -> Denoiser:
    """What ``base.pretrained`` names, checked for latents of ``shape`` and this run's ``process``.

    A folder of a UNet2DModel, a diffusers pipeline's folder, a checkpoint of this project, or a
    state dict of the network that ``params`` describe. classes: names in the order of their
    labels, compared with those that an exported model comes with. UserError if unusable.
    """
    check_scheduler(path, process)
    check_class_names(path, classes)
    denoiser = _load_base(path, shape, params, process, len(classes))
    check_classes(Path(f"base.pretrained={path}"), denoiser, len(classes))
    return denoiser


def _load_base(
    path: Path,
    shape: tuple[int, int, int],
    params: UNetParams,
    process: DiffusionParams,
    num_classes: int,
) -> Denoiser:
    if path.is_file():
        content = load_torch(path)
        if isinstance(content, dict) and {"config", "ema"} <= content.keys():
            denoiser = load_checkpoint(path)
            check_latents(Path(f"base.pretrained={path}"), denoiser, shape)
            return denoiser
        denoiser = Denoiser(unet_config(params, shape[0], shape[1], num_classes))
        load_weights(path, denoiser.unet, "base")
        return denoiser
    denoiser = import_unet(component(path, "unet"), shape)
    known = denoiser.config.get("num_train_timesteps")
    if known is not None and known != process.num_train_timesteps:
        raise UserError(
            f"base.pretrained={path}: has learnt {known} timesteps, but diffusion."
            f"num_train_timesteps={process.num_train_timesteps}; set it to {known} in "
            "conf/config.yaml, or base.pretrained=null to train one"
        )
    return denoiser
