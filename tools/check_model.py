"""Say what a run would make of a base model: `make check-model MODEL=folder`.

Loads the model as a run would, and compares its scheduler with section `diffusion` of params.yaml.
Changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stages"))

import _runtime.arguments  # noqa: F401  # puts src/ on the path

from advloop.core.errors import UserError, printable
from advloop.infra.output import print_safely
from advloop.models.adapters import adapted_layers, count_adapter
from advloop.models.base_model import COMPONENTS, import_network, read_config
from advloop.models.denoiser import Denoiser, load_checkpoint
from advloop.models.folders import component
from advloop.params.diffusion import read_diffusion
from advloop.params.imported import RECORD, read_record
from advloop.params.loader import Params
from advloop.params.schedulers import (
    check_process,
    check_scheduler,
    find_scheduler,
    read_scheduler,
)
from advloop.params.training import TrainDiffusionParams
from advloop.training.weights import step_bytes

GIB = 1 << 30
ANY_SIZE = 32  # of the latents, for a network that takes any


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a folder of diffusers, or a checkpoint of this project")
    args = parser.parse_args()
    if not args.model:
        sys.exit("error: no model; use `make check-model MODEL=folder`")
    try:
        for line in check_model(Path(args.model), Params.load()):
            print(printable(line), flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


def check_model(path: Path, params: Params) -> Iterator[str]:
    """What the model is and wants, a line for each thing; UserError if it cannot be used."""
    if not path.exists():
        raise UserError(f"{path}: does not exist; name a folder of diffusers, or a checkpoint")
    if path.is_file():
        try:
            model = load_checkpoint(path)
        except UserError:
            raise UserError(
                f"{path}: no checkpoint of this project; name one, or a folder of diffusers"
            ) from None
        config = model.config
    else:
        folder = component(path, *COMPONENTS)
        config = read_config(folder)
        side = config["sample_size"] or ANY_SIZE
        model = import_network(folder, (config["in_channels"], side, side))
    count = sum(weight.numel() for weight in model.parameters())
    sigma = ", with a learned sigma, which is left alone" if model.learns_sigma else ""
    yield f"class: {model.architecture.class_name}{sigma}"
    yield f"parameters: {count / 1e6:.1f} million"
    channels, size = config["in_channels"], config["sample_size"]
    yield f"latents: [{channels}, {size}, {size}]" if size else f"latents: {channels} channels"
    yield f"autoencoder: one with autoencoder.latent_channels={channels}" + (
        f", and data.image_size={size} × autoencoder.factor" if size else ""
    )
    text = model.architecture.text
    if text:
        yield (
            f"texts: embeddings of {model.architecture.context_width(config)} values a token, from "
            "the CLIP or T5 that it was trained with"
        )
    elif model.num_classes:
        yield f"classes: {model.num_classes}; " + (
            "also usable without, and with guidance_scale"
            if model.null_label is not None
            else "data.classes has to give as many"
        )
    else:
        yield "classes: none"
    yield f"memory of a training step: {_memory(model, count, params)}, and activations beside it"
    yield from _process(path, params, _text_options(path, params) if text else _no_text(params))


def _memory(model: Denoiser, count: int, params: Params) -> str:
    """What a round keeps of the model's ``count`` weights, by its objective and its adapter."""
    rank = params.section("train_diffusion", TrainDiffusionParams).lora_rank
    if rank is None:
        kept, with_copy = (step_bytes(count, count, copies) / GIB for copies in (0, 1))
        return (
            f"{kept:.2f} GiB for weights, gradients, AdamW and average ({with_copy:.2f} under ddo "
            "and neon)"
        )
    layers = adapted_layers(model.network, model.architecture.adapted)
    size = count_adapter([*layers.values()], rank)
    return (
        f"{step_bytes(count + size, size) / GIB:.2f} GiB for weights, and gradients, AdamW and "
        f"average of an adapter of {size:,}"
    )


def _text_options(path: Path, params: Params) -> str:
    """The options without which no run takes a model of texts; empty if params.yaml has them."""
    if params.at("data.captions") is not None:
        return ""
    folder = path if (path / "text_encoder").is_dir() else "FOLDER"
    return f" -S data.captions=COLUMN -S data.text_encoder={folder}"


def _no_text(params: Params) -> str:
    """The options with which a run takes any other model; empty if params.yaml has no captions."""
    captions = params.at("data.captions") is not None
    return " -S data.captions=null -S data.text_encoder=null" * captions


def _process(path: Path, params: Params, options: str) -> Iterator[str]:
    """What the model was trained as, and what a run with these parameters would do.

    options: that a run with the model needs.
    """
    ours = read_diffusion(params)
    file = find_scheduler(path)
    record = path.parent / RECORD
    if file is None and record.is_file():
        trained = read_record(record)["diffusion"]
        yield f"process: {_listed(trained)} ({record})"
        check = partial(check_process, str(path), record, trained, ours)
        yield _outcome(path, options, check)
        return
    if file is None:
        said = f"-S base.pretrained={path} -S base.trained_as={ours.process}"
        yield f"process: no scheduler says it; say it with {said} (vp, flow or edm)"
        return
    yield f"process: {_listed(read_scheduler(file))} ({file})"
    yield _outcome(path, options, partial(check_scheduler, path, ours))


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def _outcome(path: Path, options: str, check: Callable[[], None]) -> str:
    """What a run with the present parameters would do with the model."""
    try:
        check()
    except UserError as error:
        return f"a run now: is refused: {error}"
    return f"a run now: `dvc exp run -S base.pretrained={path}{options}` starts from it"


if __name__ == "__main__":
    main()
