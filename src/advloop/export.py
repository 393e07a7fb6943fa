"""Hand a checkpoint on in the form that diffusers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advloop.io import load_model
from advloop.model_folder import save_model_folder


def export_unet(checkpoint: Path, folder: Path) -> None:
    """Write the EMA weights as ``folder`` for ``UNet2DModel.from_pretrained``.

    The same folder serves as ``base.pretrained``. Raises UserError where the file is no
    checkpoint, and then writes nothing.
    """

    def parts(content: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return dict(content["config"]), {k: v.contiguous() for k, v in content["ema"].items()}

    config, weights = load_model(checkpoint, "checkpoint", parts)
    save_model_folder(folder, "UNet2DModel", config, weights)
