"""Hand a checkpoint on in the form that diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advloop.io import atomic_path, load_model, write_json

WEIGHTS = "diffusion_pytorch_model.safetensors"


def export_unet(checkpoint: Path, folder: Path) -> None:
    """Write the EMA weights as ``folder`` for ``UNet2DModel.from_pretrained``.

    The same folder serves as ``base.pretrained``. Needs no diffusers, whose import takes
    longer than the work. Raises UserError where the file is no checkpoint.
    """
    from safetensors.torch import save

    def build(content: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        weights = {name: tensor.contiguous() for name, tensor in content["ema"].items()}
        return {"_class_name": "UNet2DModel", **content["config"]}, save(weights)

    config, weights = load_model(checkpoint, "checkpoint", build)
    write_json(folder / "config.json", config)
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(weights)
