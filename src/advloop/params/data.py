"""Parameters of the images and of their encoding into latents."""

from __future__ import annotations

from dataclasses import dataclass

from advloop.params.loader import choice, number


@dataclass
class DataParams:
    source: str  # the embedded archive, or a folder of images
    on_error: str = choice("stop", "skip")  # at an image that cannot be read
    resize: str = choice("crop", "pad", "stretch")  # how images that are not square become so
    image_size: int = number(8, 4096)  # pixels a side of the squares
    val_fraction: float = number(0.01, 0.5)  # of the images that are not test
    test_fraction: float = number(0.01, 0.5)  # of all images, where the source has no split
    tune_fraction: float = number(0.01, 0.9)  # of the test images: to choose models by
    split_seed: int = number(0, 2**31 - 1)  # draws the groups of val, and of test
    # where an image's class stands, which the models are then told
    classes: str = choice("none", "folders", "manifest", default="none")


@dataclass
class AutoencoderParams:
    pretrained: str | None  # local folder or state dict, or None to train from scratch
    latent_channels: int = number(1, 256)
    factor: int = number(1, 64)  # pixels per latent cell, each way
    width: int = number(1)  # channels of the residual convolutions
    encoder_blocks: int = number(0)
    decoder_blocks: int = number(0)
    epochs: int = number(1)
    batch_size: int = number(1)
    learning_rate: float = number(0, open_low=True)
    l1_weight: float = number(0)  # beside the mean squared error
    latent_noise: float = number(0)  # in standard deviations of the latent


@dataclass
class EncodeDatasetParams:
    augment: str = choice("none", "hflip", "dihedral")
    batch_size: int = number(1)
