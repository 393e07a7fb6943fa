"""Every section of params.yaml, and every key of it."""

from __future__ import annotations

from typing import NamedTuple, get_type_hints

from advloop.params.card import CardParams
from advloop.params.data import AutoencoderParams, DataParams, EncodeDatasetParams
from advloop.params.diffusion import DiffusionParams, DiTParams, UNetParams
from advloop.params.evaluation import EvaluateParams
from advloop.params.run import VALUES
from advloop.params.section import Section
from advloop.params.training import (
    BaseParams,
    DiscriminatorParams,
    GenerateParams,
    TrainDiffusionParams,
    TrainDiscParams,
)


class Sections(NamedTuple):
    """The sections of params.yaml, but for ``objective``, whose class depends on its name."""

    data: DataParams
    autoencoder: AutoencoderParams
    encode_dataset: EncodeDatasetParams
    diffusion: DiffusionParams
    unet: UNetParams
    dit: DiTParams
    base: BaseParams
    generate: GenerateParams
    discriminator: DiscriminatorParams
    train_disc: TrainDiscParams
    train_diffusion: TrainDiffusionParams
    evaluate: EvaluateParams
    card: CardParams


SECTIONS: dict[str, type[Section]] = get_type_hints(Sections)
del SECTIONS["diffusion"]  # its class depends on its process
KEYS = {*VALUES, *SECTIONS, "diffusion", "objective", "derived"}
