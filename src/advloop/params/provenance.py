"""What an imported model was trained with, where its folder says so, against this run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from advloop.core.errors import UserError
from advloop.params.diffusion import DiffusionParams
from advloop.params.imported_noise import check_process, check_scheduler
from advloop.params.loader import Params

RECORD = "stage1.json"  # beside the models' folders, as data/stage1/export.py writes it
SPLIT = ("val_fraction", "test_fraction", "split_seed")


def check_provenance(params: Params) -> None:
    """Raise UserError where an imported model contradicts this run's parameters.

    A base model of another diffusion process predicts another quantity, and a model trained
    on the same source split otherwise has seen what is held out here; neither shows in the
    shapes. A folder with neither a record nor a scheduler beside it is taken as it is.
    """
    diffusion = params.section("diffusion", DiffusionParams)
    if base := OmegaConf.select(params.content, "base.pretrained"):
        check_scheduler(Path(base), diffusion)
    for section in ("autoencoder", "base"):
        folder = OmegaConf.select(params.content, f"{section}.pretrained")
        path = Path(folder).parent / RECORD if folder else None
        if path is None or not path.is_file():
            continue
        trained = _read(path)
        same_source = OmegaConf.select(params.content, "data.source") == trained.data.source
        wanted = [f"data.{name}" for name in SPLIT] if same_source else []
        wanted += ["data.image_size"]
        for key in wanted:
            ours, theirs = OmegaConf.select(params.content, key), OmegaConf.select(trained, key)
            if ours != theirs:
                raise UserError(
                    f"{params.path}: {key}={ours}, but {folder} was trained with {theirs} "
                    f"({path}); set it back, or {section}.pretrained=null to train one"
                )
        if section == "base":
            process = OmegaConf.to_container(trained.diffusion)
            assert isinstance(process, dict)
            check_process(folder, f"{path}", {str(k): v for k, v in process.items()}, diffusion)


def _read(path: Path) -> Any:
    try:
        trained = OmegaConf.create(json.loads(path.read_text())["params"])
        if not OmegaConf.is_dict(trained.data) or not OmegaConf.is_dict(trained.diffusion):
            raise TypeError("data and diffusion must be sections")
    except Exception as error:  # a foreign file can be wrong in any way; each is bad input
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a record of a training ({reason}); remove it") from None
    return trained
