"""Write a model as the folder that diffusers loads: config.json and safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from advloop.io import atomic_path, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_model_folder(
    folder: Path, class_name: str, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> None:
    """Needs no diffusers, whose import takes longer than the work."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = save(plain)
    write_json(folder / "config.json", {"_class_name": class_name, **config})
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)
