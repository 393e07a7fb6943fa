"""What the exam lays on images: garbage that no model should be behind, and damage.

Each takes images (N, S, S, 3) uint8 and a stream, and returns as many of the same size. Damage also
takes a strength: 0, 1 or 2.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFilter

Images = npt.NDArray[np.uint8]
Garbage = Callable[[Images, torch.Generator], Images]
Corruption = Callable[[Images, int, torch.Generator], Images]

STRENGTHS = 3


def _uint8(values: npt.NDArray[np.floating]) -> Images:
    result: Images = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return result


def _each(images: Images, change: Callable[[Image.Image], Image.Image]) -> Images:
    return np.stack([np.asarray(change(Image.fromarray(one)).convert("RGB")) for one in images])


# --- Garbage ---


def random_pixels(images: Images, stream: torch.Generator) -> Images:
    """Every value uniform."""
    return torch.randint(256, images.shape, generator=stream).numpy().astype(np.uint8)


def constant_colour(images: Images, _: torch.Generator) -> Images:
    """The mean colour of all images, everywhere."""
    return np.broadcast_to(_uint8(images.mean((0, 1, 2))), images.shape).copy()


def mean_image(images: Images, _: torch.Generator) -> Images:
    return np.broadcast_to(_uint8(images.mean(0)), images.shape).copy()


def one_image(images: Images, _: torch.Generator) -> Images:
    """The first image, again and again."""
    return np.broadcast_to(images[0], images.shape).copy()


def palette_alone(images: Images, stream: torch.Generator) -> Images:
    """The pixels of each image in random order: its colours without its layout."""
    flat = images.reshape(len(images), -1, 3)
    orders = torch.stack([torch.randperm(flat.shape[1], generator=stream) for _ in flat])
    return np.take_along_axis(flat, orders.numpy()[:, :, None], 1).reshape(images.shape)


GARBAGE: dict[str, Garbage] = {
    "random pixels": random_pixels,
    "one constant colour": constant_colour,
    "the mean image": mean_image,
    "one image repeated": one_image,
    "pixels in random order": palette_alone,
}

# --- Damage ---


def noise(images: Images, strength: int, stream: torch.Generator) -> Images:
    """Gaussian, of 2, 8 or 32 grey levels."""
    drawn = torch.randn(images.shape, generator=stream).numpy()
    return _uint8(images + (2, 8, 32)[strength] * drawn)


def blur(images: Images, strength: int, _: torch.Generator) -> Images:
    """Gaussian, of 0.5, 1 or 2 pixels."""
    return _each(images, lambda one: one.filter(ImageFilter.GaussianBlur((0.5, 1, 2)[strength])))


def sharpen(images: Images, strength: int, _: torch.Generator) -> Images:
    """Unsharp mask of one pixel, by 50, 150 or 400 percent."""
    mask = ImageFilter.UnsharpMask(1, (50, 150, 400)[strength], 0)
    return _each(images, lambda one: one.filter(mask))


def jpeg(images: Images, strength: int, _: torch.Generator) -> Images:
    """Of quality 75, 40 or 10."""

    def compress(one: Image.Image) -> Image.Image:
        file = io.BytesIO()
        one.save(file, "JPEG", quality=(75, 40, 10)[strength])
        return Image.open(file)

    return _each(images, compress)


def shuffle_patches(images: Images, strength: int, stream: torch.Generator) -> Images:
    """Each image cut into 2×2, 4×4 or 8×8 squares, which change places."""
    parts = (2, 4, 8)[strength]
    count, side = len(images), images.shape[1] // parts
    inside = images[:, : parts * side, : parts * side]
    squares = inside.reshape(count, parts, side, parts, side, 3).swapaxes(2, 3)
    squares = squares.reshape(count, parts**2, side, side, 3)
    orders = torch.stack([torch.randperm(parts**2, generator=stream) for _ in images]).numpy()
    squares = np.take_along_axis(squares, orders[:, :, None, None, None], 1)
    squares = squares.reshape(count, parts, parts, side, side, 3).swapaxes(2, 3)
    result = images.copy()
    result[:, : parts * side, : parts * side] = squares.reshape(inside.shape)
    return result


def shift_colours(images: Images, strength: int, _: torch.Generator) -> Images:
    """Red up and blue down by 4, 16 or 64 grey levels."""
    return _uint8(images + (4, 16, 64)[strength] * np.array([1.0, 0.0, -1.0]))


def swap_colours(images: Images, strength: int, stream: torch.Generator) -> Images:
    """Red and blue exchanged in a tenth, a third or all of the images: the layout is right."""
    count = round((0.1, 1 / 3, 1)[strength] * len(images))
    chosen = torch.randperm(len(images), generator=stream)[:count].numpy()
    result = images.copy()
    result[chosen] = images[chosen][..., ::-1]
    return result


def erase_parts(images: Images, strength: int, stream: torch.Generator) -> Images:
    """A twentieth, a seventh or two fifths of each image, in squares, take their mean colour."""
    side = max(images.shape[1] // 16, 2)
    parts = images.shape[1] // side
    inside = images[:, : parts * side, : parts * side]
    squares = inside.reshape(len(images), parts, side, parts, side, 3)
    means = squares.mean((2, 4), keepdims=True)
    drawn = torch.rand((len(images), parts, 1, parts, 1, 1), generator=stream).numpy()
    result = images.copy()
    result[:, : parts * side, : parts * side] = _uint8(
        np.where(drawn < (0.05, 0.15, 0.4)[strength], means, squares)
    ).reshape(inside.shape)
    return result


def repeat_one(images: Images, strength: int, _: torch.Generator) -> Images:
    """A tenth, a quarter or half of the images replaced by copies of the first."""
    result = images.copy()
    result[: round((0.1, 0.25, 0.5)[strength] * len(images))] = images[0]
    return result


def drop_modes(images: Images, strength: int, _: torch.Generator) -> Images:
    """The darkest quarter, half or three quarters of the images replaced by copies of others."""
    order = np.argsort(images.mean((1, 2, 3)), kind="stable")
    kept = order[len(images) * (strength + 1) // 4 :]
    return images[np.resize(kept, len(images))]


CORRUPTIONS: dict[str, Corruption] = {
    "noise": noise,
    "blur": blur,
    "sharpened": sharpen,
    "JPEG": jpeg,
    "patches shuffled": shuffle_patches,
    "colours shifted": shift_colours,
    "red and blue swapped": swap_colours,
    "parts erased": erase_parts,
    "copies of one": repeat_one,
    "modes missing": drop_modes,
}
