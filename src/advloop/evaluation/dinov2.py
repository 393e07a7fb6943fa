"""Image features of a DINOv2 (Oquab et al. 2024) that the user has on the disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from advloop.core.errors import UserError
from advloop.core.files import all_finite
from advloop.evaluation.feature_batches import Images, in_batches, reason_of
from advloop.params.evaluation import DINOV2_FOLDER
from advloop.params.imported import check_dinov2

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]


class Dinov2:
    """The network in a local folder: the class token after the last layer norm.

    Images are resized to ``size`` pixels a side, bicubic as the network was evaluated, and
    normalised as in its training. Features (N, D) are as wide as the network: 384 to 1536.
    """

    name = "dinov2"

    def __init__(self, folder: Path | None, size: int, device: torch.device) -> None:
        if folder is None:
            raise UserError(
                "evaluate.features=dinov2: no weights; set evaluate.feature_weights to "
                f"{DINOV2_FOLDER}"
            )
        check_dinov2(folder, size)
        self.network, self.size, self.device = load_dinov2(folder).to(device), size, device
        self.mean, self.std = (
            torch.tensor(values, device=device).view(3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )

    def __call__(self, images: Images) -> torch.Tensor:
        return in_batches(images, self.device, self.class_tokens)

    def class_tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, S, S) uint8 -> (B, D)."""
        side = (self.size, self.size)
        pixels = F.interpolate(pixels.float() / 255, side, mode="bicubic", antialias=True)
        found = self.network((pixels.clamp(0, 1) - self.mean) / self.std)
        tokens: torch.Tensor = found.pooler_output
        return tokens


def load_dinov2(folder: Path) -> nn.Module:
    """The frozen network in a folder of config.json and safetensors; UserError if unusable."""
    try:
        from transformers import Dinov2Model
        from transformers.utils import logging
    except ImportError as error:
        raise UserError(
            f"evaluate.features=dinov2: transformers is not usable ({error}); run "
            "`uv sync --extra dinov2`, or set evaluate.features=lite0"
        ) from None
    logging.set_verbosity_error()  # else it lists each tensor that does not fit
    logging.disable_progress_bar()
    try:
        model, report = Dinov2Model.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # to name them below
            output_loading_info=True,
            dtype=torch.float32,
            attn_implementation="sdpa",  # else config.json may ask for code from a hub
        )
        if any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
            raise ValueError("its weights do not match its config.json")
        if not all_finite(model.state_dict()):
            raise ValueError("its weights hold NaN or infinity")
    except Exception as error:  # a foreign folder can fail in any way
        raise UserError(
            f"evaluate.feature_weights={folder}: not a DINOv2 ({reason_of(error)}); "
            f"name {DINOV2_FOLDER}"
        ) from None
    network: nn.Module = model.requires_grad_(False).eval()
    return network
