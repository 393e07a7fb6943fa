"""Parameters of the images and of their encoding into latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from advloop.params.section import Section


class DataParams(Section):
    source: str  # the embedded archive, or a folder of images
    on_error: Literal["stop", "skip"]  # at an image that cannot be read
    resize: Literal["crop", "pad", "stretch"]  # how to make an image square
    image_size: Annotated[int, Field(ge=8, le=4096)]  # pixels a side of the squares
    tiles: Annotated[int, Field(ge=1, le=64)]  # each way: every image is cut into tiles^2 squares
    max_flat: Annotated[float, Field(gt=0, le=1)]  # share of one colour; flatter ones are left out
    value_range: list[float] | None = None  # black, white above 8 bits; None: from all images
    val_fraction: Annotated[float, Field(ge=0.01, le=0.5)]  # of the images that are not test
    test_fraction: Annotated[float, Field(ge=0.01, le=0.5)]  # of all, if the source has no split
    tune_fraction: Annotated[float, Field(ge=0.01, le=0.9)]  # of the test images: to choose models
    split_seed: Annotated[int, Field(ge=0, le=2**31 - 1)]  # draws the groups of val and of test
    classes: Literal["none", "folders", "manifest"] = "none"  # what names an image's class
    captions: str | None = None  # column of manifest.csv with a text for each image; None: no texts
    text_encoder: str | None = None  # local folder of the network that embeds them


class AutoencoderParams(Section):
    pretrained: str | None  # local folder or state dict, or None to train from scratch
    latent_channels: Annotated[int, Field(ge=1, le=256)]
    factor: Annotated[int, Field(ge=1, le=64)]  # pixels per latent cell, each way
    width: PositiveInt  # channels of the residual convolutions
    encoder_blocks: NonNegativeInt
    decoder_blocks: NonNegativeInt
    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    l1_weight: NonNegativeFloat  # beside the mean squared error
    latent_noise: NonNegativeFloat  # in standard deviations of the latent


VARIANTS = {"none": 1, "hflip": 2, "dihedral": 8}  # of an image, by the value of ``augment``


class EncodeDatasetParams(Section):
    augment: Literal["none", "hflip", "dihedral"]
    batch_size: PositiveInt
