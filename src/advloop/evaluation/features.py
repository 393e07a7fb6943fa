"""Fixed image features for distances between sets of images.

To add a network: write a class like Features, an entry in NETWORKS that builds it, and its name
among the choices of ``EvaluateParams.features``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from advloop.core.errors import UserError
from advloop.core.files import all_finite
from advloop.evaluation.dinov2 import Dinov2
from advloop.evaluation.feature_batches import BATCH, Images, in_batches, reason_of
from advloop.evaluation.lite0 import Lite0
from advloop.models.codec import Codec


class Features(Protocol):
    """Images (N, S, S, 3) uint8 -> features (N, D) float32 on the CPU."""

    name: str  # part of the name of each score in these features

    def __call__(self, images: Images) -> torch.Tensor: ...


class Inception:
    """Pooled features (N, 2048) of the Inception-v3 (Szegedy et al. 2016) that FIDs are made with.

    torch-fidelity, an extra (Apache-2.0), resizes images to 299 pixels as TensorFlow 1 did.
    weights: a file of them; None downloads them at the first use, and torch.hub keeps them.
    """

    name = "inception"

    def __init__(self, device: torch.device, weights: Path | None) -> None:
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
            tensors = load_tensors(weights) if weights else download(address)
            model: Any = package.FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=saved(tensors)
            )
        except Exception as error:  # a damaged file can fail in any way
            named = f"feature_weights={weights}" if weights else "features=inception"
            raise UserError(
                f"evaluate.{named}: no weights of Inception-v3 ({reason_of(error)}); put {address} "
                f"at {weights or kept}, or set evaluate.features=lite0"
            ) from None
        self.network, self.device = model.requires_grad_(False).eval().to(device), device

    def __call__(self, images: Images) -> torch.Tensor:
        return in_batches(images, self.device, lambda pixels: self.network(pixels)[0])


def load_tensors(file: Path) -> Any:
    """The finite tensors in a file of ``torch.save``; raises whatever is wrong with it."""
    tensors = torch.load(file, weights_only=True, map_location="cpu")
    if not all_finite(tensors):
        raise ValueError("it holds NaN or infinity")
    return tensors


def download(address: str) -> Any:
    """The tensors at an address, whose file name holds their hash."""
    return torch.hub.load_state_dict_from_url(
        address, map_location="cpu", progress=False, check_hash=True, weights_only=True
    )


def saved(tensors: Any) -> io.BytesIO:
    """A file in memory for torch-fidelity, which would unpickle whatever stands on the disk."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    buffer.seek(0)
    return buffer


class Encoder:
    """The run's own autoencoder: scaled latents, flattened to (N, C * H * W).

    It compares what the diffusion model works on, without the errors of decoding.
    """

    name = "encoder"

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def __call__(self, images: Images) -> torch.Tensor:
        return self.codec.encode_all(images, BATCH).flatten(1).cpu()


# Each network is built from (codec, pixels a side, device, the user's weights or None).
NETWORKS: dict[str, Callable[[Codec, int, torch.device, Path | None], Features]] = {
    "lite0": lambda _, size, device, __: Lite0(size, device),
    "dinov2": lambda _, size, device, weights: Dinov2(weights, size, device),
    "inception": lambda _, __, device, weights: Inception(device, weights),
    "encoder": lambda codec, _, __, ___: Encoder(codec),
}


def load_features(
    name: str, codec: Codec, size: int, device: torch.device, weights: str | None = None
) -> Features:
    """The features of that name in NETWORKS; UserError if their weights are missing or damaged.

    size: pixels a side for lite0 and dinov2; the others ignore it.
    weights: the path in ``evaluate.feature_weights``, which check_config compares with the name.
    """
    return NETWORKS[name](codec, size, device, None if weights is None else Path(weights))
