"""The pictures of the report, each with a description in words."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from advloop.core.errors import UserError
from advloop.core.rounds import BASE, BASE_FEW, EVALUATION
from advloop.data.pictures import load_png
from advloop.evaluation.gallery import NEIGHBOURS, SAMPLES, STRIP, VIABILITY, Neighbour, Viability
from advloop.evaluation.results import Results
from advloop.evaluation.summary import TITLES
from advloop.reporting.verdict import Verdict

GAP = 6  # white pixels between two rows
WIDTH = 1000  # pixels that a row of images has at least
LABEL, LABEL_SIZE = 220, 20  # pixels: width of the column of labels, height of a letter


@dataclass(frozen=True)
class Picture:
    """data: a PNG in base64."""

    data: str
    width: int
    height: int


def picture(path: Path) -> Picture:
    width, height = load_png(path).size
    return Picture(base64.b64encode(path.read_bytes()).decode(), width, height)


def base_folders(results: Results, base: Path) -> dict[str, Path]:
    """Where the pictures of the base model are, and those with few steps if it has them.

    base: folder of the base model.
    """
    folders = {BASE: base / EVALUATION}
    if results.base_few:
        folders[BASE_FEW] = base / EVALUATION / BASE_FEW
    return folders


def comparison(reals: Path, folders: Mapping[str, Path], verdict: Verdict) -> dict[str, Any]:
    """Strips of real images, the base model and the model that the verdict compares with it.

    The base model also with few steps, if ``folders`` has it.
    """
    of_base = {TITLES[name]: folders[name] for name in (BASE, BASE_FEW) if name in folders}
    strips = {"real images": reals, **of_base}
    strips[verdict.compared] = folders[verdict.compared]
    drawn = samples_picture(strips)
    file = io.BytesIO()
    drawn.save(file, format="PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    alt = f"Rows of real test images, samples of the base model and samples of {verdict.compared}."
    return {"picture": Picture(data, *drawn.size), "alt": alt}


def samples_picture(strips: Mapping[str, Path]) -> Image.Image:
    """The strips in these folders below each other, each beside its label.

    strips: folders by label. Pixels are enlarged by a whole number, so that the strips are at
    least WIDTH pixels wide. UserError if their widths differ: they then belong to different runs.
    """
    rows = {label: load_png(folder / STRIP) for label, folder in strips.items()}
    width = next(iter(rows.values())).width
    for label, row in rows.items():
        if row.width != width:
            raise UserError(
                f"{strips[label] / STRIP}: is {row.width} pixels wide, not {width} like the "
                "others; remake it with `dvc repro`"
            )
    factor = -(-WIDTH // width)
    heights = [row.height * factor for row in rows.values()]
    size = LABEL + width * factor, sum(heights) + GAP * (len(rows) - 1)
    picture, top = Image.new("RGB", size, "white"), 0
    writer, font = ImageDraw.Draw(picture), ImageFont.load_default(LABEL_SIZE)
    for (label, row), height in zip(rows.items(), heights, strict=True):
        writer.text((GAP, top + height // 2), label, "black", font, anchor="lm")
        enlarged = row.resize((width * factor, height), Image.Resampling.NEAREST)
        picture.paste(enlarged, (LABEL, top))
        top += height + GAP
    return picture


def reals(folder: Path) -> dict[str, Any]:
    title, alt = "Real test images", "A grid of real test images."
    return {"name": title, "alt": alt, "picture": picture(folder / SAMPLES)}


def samples(folder: Path, name: str) -> dict[str, Any]:
    title = TITLES.get(name, name)
    alt = f"A grid of samples of {title}, from the same noise as the grids of the other models."
    return {"name": title, "alt": alt, "picture": picture(folder / SAMPLES)}


def neighbours(folder: Path, name: str, found: Sequence[Neighbour]) -> dict[str, Any]:
    title = TITLES.get(name, name)
    return {
        "name": title,
        "picture": picture(folder / NEIGHBOURS),
        "alt": f"{len(found)} samples of {title}, each above its nearest training image, which the "
        "table below names.",
        "rows": [{"file": n.file, "distance": f"{n.distance:.3f}"} for n in found],
    }


def viability(folder: Path, name: str, found: Viability) -> dict[str, Any]:
    most, least = (
        ", ".join(f"{value:.3f}" for value in side) for side in (found.most, found.least)
    )
    return {
        "name": name,
        "picture": picture(folder / VIABILITY),
        "alt": f"The {len(found.most)} samples of {name} that look most real to its discriminator, "
        "above the same number that look least real.",
        "caption": f"Most viable, above: {most}. Least viable, below: {least}.",
    }
