"""The user's own base model (``base.pretrained``): loaded from its folder or file, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from diffusers.models.unets.unet_2d import UNet2DModel

from advloop.core.errors import UserError
from advloop.core.files import all_finite, load_torch
from advloop.models.denoiser import (
    Denoiser,
    check_classes,
    check_latents,
    load_checkpoint,
    unet_config,
)
from advloop.models.folders import check_class_names, component, load_diffusers, load_weights
from advloop.params.diffusion import DiffusionParams, UNetParams
from advloop.params.schedulers import check_scheduler


def import_unet(folder: Path, shape: tuple[int, int, int]) -> Denoiser:
    """The UNet2DModel of a local diffusers folder, for latents of ``shape`` (C, S, S).

    UserError if the folder is missing or damaged, or holds another class or shape of network.
    """
    try:
        if not (folder / "config.json").is_file():
            raise ValueError("it holds no config.json")  # diffusers would ask a hub for it
        name = UNet2DModel.load_config(folder, local_files_only=True).get("_class_name")
        if name != "UNet2DModel":
            raise ValueError(f"its class is {name}, not UNet2DModel")
        unet = load_diffusers(UNet2DModel, folder)
        assert isinstance(unet, UNet2DModel)
        if unet.config["class_embed_type"] is not None:
            raise ValueError(
                f"it takes classes as {unet.config['class_embed_type']}, not as labels"
            )
        if unet.config["out_channels"] != unet.config["in_channels"]:
            raise ValueError("its out_channels differ from its in_channels")
        if unet.config["time_embedding_type"] == "fourier":
            raise ValueError("it takes noise levels (fourier), not timesteps")
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
    """The network at ``path``, checked against latents of ``shape`` (C, S, S) and ``process``.

    path: the folder of a UNet2DModel or of a diffusers pipeline, a checkpoint of this project, or
    a state dict of the network that ``params`` describes. classes: class names in the order of
    their labels, which must be those of the model. UserError if unusable.
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
            f"base.pretrained={path}: was trained on {known} timesteps, but diffusion."
            f"num_train_timesteps={process.num_train_timesteps}; set it to {known} in "
            "conf/config.yaml, or base.pretrained=null to train one"
        )
    return denoiser
