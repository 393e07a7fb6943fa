"""Images that are not floor plans and that nobody tuned on: letters, and shaded spheres.

Both are drawn from a seed, 64 pixels a side, with a manifest.csv that says their groups.
"""

from __future__ import annotations

import colorsys
import csv
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from advloop.core.files import atomic_path

SIZE, FINER = 64, 4  # pixels a side; drawn so many times larger, for smooth edges
NUMBER = 3000  # of images in a set
MANIFEST = "manifest.csv"
LIGHT = np.array([-0.45, -0.6, 0.66])  # from the upper left, towards the viewer


def letters(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """Two letters in ink on paper, of any size and place; a pair of letters is a group."""
    pair = "".join(rng.choice(list(string.ascii_letters), 2))
    paper = _colour(rng, saturation=(0.05, 0.5), value=(0.8, 1.0))
    ink = _colour(rng, saturation=(0.4, 1.0), value=(0.1, 0.5))
    side = SIZE * FINER
    image = Image.new("RGB", (side, side), paper)
    font = ImageFont.load_default(float(rng.uniform(0.5, 0.75)) * side)
    middle = rng.uniform(0.45, 0.55, 2) * side
    ImageDraw.Draw(image).text(tuple(middle), pair, ink, font, anchor="mm")
    return image.resize((SIZE, SIZE), Image.Resampling.BOX), pair.lower()


def spheres(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """One to three shiny spheres with shadows on a coloured ground; every image is a group."""
    side = SIZE * FINER
    y, x = np.mgrid[0:side, 0:side] / side
    ground = np.array(_colour(rng, saturation=(0.1, 0.6), value=(0.6, 0.9)))
    scene = ground * (0.55 + 0.45 * y)[..., None]
    for depth in np.sort(rng.uniform(0.3, 0.75, rng.integers(1, 4))):  # the furthest first
        radius, across = 0.08 + 0.16 * depth, rng.uniform(0.15, 0.85)
        low = depth + radius * 0.9
        shadow = ((x - across - 0.5 * radius) / 1.4) ** 2 + ((y - low) * 2.5) ** 2
        scene *= (1 - 0.55 * np.exp(-2.0 * shadow / radius**2))[..., None]
        right, down = (x - across) / radius, (y - depth) / radius
        inside = right**2 + down**2 < 1
        front = np.sqrt(np.clip(1 - right**2 - down**2, 0, 1))
        facing = np.clip(right * LIGHT[0] + down * LIGHT[1] + front * LIGHT[2], 0, 1)
        colour = np.array(_colour(rng, saturation=(0.6, 1.0), value=(0.6, 1.0)))
        shaded = colour * (0.2 + 0.8 * facing)[..., None] + 200 * (facing**30)[..., None]
        scene[inside] = shaded[inside]
    image = Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))
    return image.resize((SIZE, SIZE), Image.Resampling.BOX), ""


DRAWN: dict[str, Callable[[np.random.Generator], tuple[Image.Image, str]]] = {
    "letters": letters,
    "spheres": spheres,
}


def draw_images(name: str, folder: Path, number: int) -> None:
    """Write ``number`` images of the set ``name``, one of DRAWN, and in the end their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [("file", "group")]
    for index in range(number):
        image, group = DRAWN[name](np.random.default_rng([index, len(name)]))
        file = f"{index:04}.png"
        image.save(folder / file)
        rows.append((file, group or file))
    with atomic_path(folder / MANIFEST) as temporary, temporary.open("w", newline="") as manifest:
        csv.writer(manifest).writerows(rows)


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)
    )
    return round(255 * red), round(255 * green), round(255 * blue)
