"""What the networks of image features share: images in batches, and why weights are refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from advloop.core.random import batches

Images = npt.NDArray[np.uint8]
BATCH = 64
# The widest maps of eight images fit a CPU's cache, those of 64 take half as long again.
CPU_BATCH = 8


@torch.no_grad()
def in_batches(
    images: Images, device: torch.device, network: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Features (N, D) float32, on the CPU, of images (N, S, S, 3) uint8.

    network: maps pixels (B, 3, S, S) uint8 on the device to (B, D).
    """
    features = []
    for part in batches(len(images), CPU_BATCH if device.type == "cpu" else BATCH):
        pixels = torch.from_numpy(np.array(images[part.start : part.stop])).to(device)
        features.append(network(pixels.permute(0, 3, 1, 2)).float().cpu())
    return torch.cat(features)


def reason_of(error: Exception) -> str:
    """Why weights cannot be used, in one line; torch would advise to unpickle them anyway."""
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "it holds more than tensors or is damaged"
    return " ".join(str(error).split())[:200] or type(error).__name__
