"""Say what a run would make of a base model: `make check-model MODEL=folder`.

Reads the model's config.json and scheduler and section `diffusion` of params.yaml, and no weights;
changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "stages"))

import _runtime.arguments  # noqa: F401  # puts src/ on the path

import torch

from advloop.core.errors import UserError, printable
from advloop.infra.output import print_safely
from advloop.models.base_model import COMPONENTS, read_config
from advloop.models.denoiser import Denoiser
from advloop.models.folders import component
from advloop.params.diffusion import read_diffusion
from advloop.params.imported import RECORD
from advloop.params.loader import Params
from advloop.params.schedulers import check_scheduler, find_scheduler, read_scheduler

COPIES = 5  # of the weights in a step: they, their gradients, two moments of AdamW, their average
GIB = 1 << 30


def main() -> None:
    print_safely()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="a folder of diffusers")
    args = parser.parse_args()
    try:
        for line in check_model(args.model, Params.load()):
            print(printable(line), flush=True)
    except UserError as error:
        sys.exit(f"error: {error}")


def check_model(path: Path, params: Params) -> Iterator[str]:
    """What the model is and wants, a line for each thing; UserError if it cannot be used."""
    config = read_config(component(path, *COMPONENTS))
    with torch.device("meta"):
        model = Denoiser(config)
    count = sum(weight.numel() for weight in model.parameters())
    sigma = ", with a learned sigma, which is left alone" if model.learns_sigma else ""
    yield f"class: {model.architecture.class_name}{sigma}"
    yield f"parameters: {count / 1e6:.1f} million"
    channels, size = config["in_channels"], config["sample_size"]
    yield f"latents: [{channels}, {size}, {size}]" if size else f"latents: {channels} channels"
    yield f"autoencoder: one with autoencoder.latent_channels={channels}" + (
        f", and data.image_size={size} × autoencoder.factor" if size else ""
    )
    if model.num_classes:
        yield f"classes: {model.num_classes}; " + (
            "also usable without, and with guidance_scale"
            if model.null_label is not None
            else "data.classes has to give as many"
        )
    else:
        yield "classes: none"
    memory = COPIES * 4 * count
    yield (
        f"memory of a training step: {memory / GIB:.2f} GiB for weights, gradients, AdamW and "
        f"average ({(memory + 4 * count) / GIB:.2f} under ddo and neon), and activations beside it"
    )
    yield from _process(path, params)


def _process(path: Path, params: Params) -> Iterator[str]:
    """What the model was trained as, and what a run with these parameters would do."""
    ours = read_diffusion(params)
    file = find_scheduler(path)
    if file is None and (path.parent / RECORD).is_file():
        yield f"process: that of {path.parent / RECORD}, with which check_config compares diffusion"
        return
    if file is None:
        said = f"-S base.trained_as={ours.process}"
        yield f"process: no scheduler says it; say it with {said} (vp, flow or edm)"
        return
    values = ", ".join(f"{name}={value}" for name, value in read_scheduler(file).items())
    yield f"process: {values} ({file})"
    try:
        check_scheduler(path, ours)
    except UserError as error:
        yield f"a run now: is refused: {error}"
    else:
        yield f"a run now: `dvc exp run -S base.pretrained={path}` starts from it"


if __name__ == "__main__":
    main()
