"""Model folders in the form of diffusers (config.json, weights), and files of state dicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from advloop.core.errors import UserError, printable
from advloop.core.files import all_finite, atomic_path, load_torch, read_json, write_json
from advloop.infra.progress import say
from advloop.models.patch_autoencoder import WEIGHTS
from advloop.models.weight_files import find_weights

CONFIG = "config.json"
CLASSES = "classes.json"  # in an exported model's folder: class names in the order of their labels


def save_model_folder(
    folder: Path, class_name: str, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> None:
    """Write ``folder`` as diffusers would, without importing it, which takes longer than the work.

    class_name: of the network, for config.json, whose other keys are ``config``.
    """
    from safetensors.torch import save

    content = save({name: t.detach().cpu().contiguous() for name, t in weights.items()})
    write_json(folder / CONFIG, {"_class_name": class_name, **config})
    with atomic_path(folder / WEIGHTS) as temporary:
        temporary.write_bytes(content)


def load_diffusers(network: Any, folder: Path, keep: Set[str] = frozenset()) -> nn.Module:
    """The network of diffusers' class ``network`` in a local folder of config.json and weights.

    The weights are float32, whatever the files hold. Keys of config.json that the class does not
    know are dropped, unless in ``keep``. A line says so, and which weights were taken if the
    folder's are a variant. Never asks a hub, and executes nothing (``weight_files``). Raises
    ValueError if the weights do not match config.json, and whatever diffusers raises if it cannot
    read the folder.
    """
    weights = find_weights(folder)
    with _quiet():
        loaded, report = network.from_pretrained(
            folder,
            local_files_only=True,
            variant=weights.variant,
            use_safetensors=weights.kind == "safetensors",
            torch_dtype=torch.float32,
            output_loading_info=True,
            low_cpu_mem_usage=False,  # otherwise it asks for accelerate in four lines
        )
    if report["missing_keys"] or report["unexpected_keys"] or report["mismatched_keys"]:
        raise ValueError("its weights do not match its config.json")
    assert isinstance(loaded, nn.Module)
    if weights.variant:
        say(printable(f"{weights.file}: {weights.variant} weights, in fp32 from here on"))
    return _with_known_keys(loaded, folder / CONFIG, keep)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without diffusers' warning of unknown keys, and its progress bar for files of weights."""
    from advloop.models.library import diffusers

    logging = diffusers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _with_known_keys(loaded: nn.Module, file: Path, keep: Set[str]) -> nn.Module:
    """The network with those keys in its ``config`` alone that its class takes, or ``keep`` names.

    diffusers itself keeps the others, and saves them with the network.
    """
    network: Any = type(loaded)
    config = {k: v for k, v in loaded.config.items() if not k.startswith("_")}  # type: ignore[operator, union-attr]  # a mapping
    arguments = signature(network.__init__).parameters.keys()
    if config.keys() <= arguments | keep:
        return loaded
    plain = network(**{k: v for k, v in config.items() if k in arguments})
    unknown = sorted(config.keys() - plain.config.keys() - keep)
    if not unknown:  # only keys that the class adds by itself
        return loaded
    say(printable(f"{file}: dropped, unknown to {network.__name__}: {', '.join(unknown)}"))
    plain.register_to_config(**{k: v for k, v in config.items() if k in keep})
    plain.load_state_dict(loaded.state_dict(), assign=True)
    return plain.eval()  # type: ignore[no-any-return]  # a diffusers ModelMixin


def component(folder: Path, *names: str) -> Path:
    """The folder of a model: ``folder`` itself or, in a pipeline's, the first of ``names``.

    Averaged weights beside it, in ``NAME_ema/`` or ``ema/``, are taken first, and a line says so.
    """
    if (folder / CONFIG).is_file():
        return folder
    plain = next((folder / name for name in names if (folder / name / CONFIG).is_file()), None)
    for name in [*(f"{name}_ema" for name in names), "ema"]:
        average = folder / name
        if not (average / CONFIG).is_file():
            continue
        if plain is None:
            return average
        if _class_name(average) == _class_name(plain):  # ema/ may be of another part of a pipeline
            others = f"to take those of {plain.name}/, name {plain}"
            say(printable(f"{average}: averaged weights (EMA), which are taken; {others}"))
            return average
    return plain or folder


def _class_name(folder: Path) -> Any:
    """What config.json says; None if it is damaged, of which loading the folder will tell."""
    try:
        return json.loads((folder / CONFIG).read_text())["_class_name"]
    except (ValueError, KeyError, TypeError, RecursionError, OSError):
        return None


def check_class_names(model: Path, classes: Sequence[str]) -> None:
    """Raise UserError if the model's folder, or the pipeline's around it, names other classes.

    As many classes in another order have the same shapes, and only this file tells. A model
    without it is taken to have them in alphabetical order, as this project does.
    """
    found = next((p for p in (model / CLASSES, model.parent / CLASSES) if p.is_file()), None)
    if found is not None and read_json(found) != list(classes):
        raise UserError(
            f"{found}: the model's classes are not those of this run's images "
            f"({', '.join(classes) or 'none'}); set data.classes, rename the classes to match, or "
            "set base.pretrained=null"
        )


def load_weights(path: Path, model: nn.Module, section: str) -> None:
    """Load into ``model`` a state dict from ``torch.save``; UserError unless it fits exactly.

    section: the section of params.yaml that describes the model, for the message.
    """
    content = load_torch(path)
    problem = _mismatch(content, model.state_dict())
    if problem is None and not all_finite(content):
        problem = "it holds NaN or infinity"
    if problem:
        raise UserError(
            f"{section}.pretrained={path}: not a state dict of the network that params.yaml "
            f"describes ({problem}); adapt the parameters, or name a folder with config.json"
        )
    model.load_state_dict(content)


def _mismatch(content: Any, expected: Mapping[str, torch.Tensor]) -> str | None:
    """Why ``content`` is not a state dict with the names and shapes of ``expected``, or None."""
    if not isinstance(content, Mapping):
        return f"it holds a {type(content).__name__}"
    for name, tensor in content.items():
        if not isinstance(tensor, torch.Tensor):
            return f"{str(name)[:60]} is a {type(tensor).__name__}; save the state dict alone"
    missing = [name for name in expected if name not in content]
    unknown = [f"{name}"[:60] for name in content if name not in expected]
    if missing or unknown:
        first = f"{missing[0]} is missing" if missing else f"{unknown[0]} is unknown"
        return f"{first}; {len(missing)} missing and {len(unknown)} unknown of {len(expected)}"
    for name, tensor in expected.items():
        if content[name].shape != tensor.shape:
            found, wanted = list(content[name].shape), list(tensor.shape)
            return f"{name} has the shape {found}, not {wanted}"
    return None
