"""Models in files: the folder that diffusers loads (config.json, safetensors), and state dicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advloop.core.errors import UserError
from advloop.core.io import all_finite, atomic_path, load_torch, read_json, write_json
from advloop.patch_autoencoder import WEIGHTS

CLASSES = "classes.json"  # names in the order of their labels, in an exported model's folder


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


def component(folder: Path, *names: str) -> Path:
    """The folder of a model: ``folder``, or the one inside it that a pipeline gives it."""
    if (folder / "config.json").is_file():
        return folder
    inside = [folder / name for name in names if (folder / name / "config.json").is_file()]
    return inside[0] if inside else folder


def check_class_names(model: Path, classes: Sequence[str]) -> None:
    """Raise UserError where the model's folder, or the one around it, names other classes.

    As many in another order, or other ones, would show in no shape. A model without that file is
    taken to have them in the order that is used here: that of their names.
    """
    found = next((p for p in (model / CLASSES, model.parent / CLASSES) if p.is_file()), None)
    if found is not None and read_json(found) != list(classes):
        raise UserError(
            f"{found}: the model's classes are not those of this run's images "
            f"({', '.join(classes) or 'none'}); set data.classes, name them alike, or set "
            "base.pretrained=null"
        )


def load_weights(path: Path, model: nn.Module, section: str) -> None:
    """Load a state dict that ``torch.save`` wrote; UserError unless it is this model's, whole.

    section: of the parameters that describe the model, named in the error.
    """
    content = load_torch(path)
    problem = _misfit(content, model.state_dict())
    if problem is None and not all_finite(content):
        problem = "it holds NaN or infinity"
    if problem:
        raise UserError(
            f"{section}.pretrained={path}: not a state dict of the network that params.yaml "
            f"describes ({problem}); adapt the parameters, or name a folder with config.json"
        )
    model.load_state_dict(content)


def _misfit(content: Any, expected: Mapping[str, torch.Tensor]) -> str | None:
    """The first thing that keeps ``content`` from being a state dict like ``expected``."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            return f"{str(name)[:60]} is a {type(tensor).__name__}; save the state dict alone"
    missing = [name for name in expected if name not in content]
    strange = [f"{name}"[:60] for name in content if name not in expected]
    if missing or strange:
        first = f"{missing[0]} is missing" if missing else f"{strange[0]} is unknown"
        return f"{first}; {len(missing)} missing and {len(strange)} unknown of {len(expected)}"
    for name, tensor in expected.items():
        if content[name].shape != tensor.shape:
            found, wanted = list(content[name].shape), list(tensor.shape)
            return f"{name} has the shape {found}, not {wanted}"
    return None
