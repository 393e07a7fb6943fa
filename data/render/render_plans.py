"""Render the floor plans of Freedoom's maps as 256 by 256 PNG windows.

Every map is drawn from above at `UNITS_PER_PIXEL`, one colour to a class of sector, and cut into
windows that overlap by half. Windows that are mostly empty or too plain are dropped. Windows of
one map always fall on the same side of the train/test split.

    python data/render/render_plans.py --wads DIR --out DIR

`--wads` must hold `freedoom1.wad`, `freedoom2.wad` and `freedm.wad`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

if TYPE_CHECKING:  # mypy runs at the repository's root; the script sees its own folder
    from data.render.wad import DoomMap, WadError, read_maps
else:
    from wad import DoomMap, WadError, read_maps

WADS = ("freedoom1", "freedoom2", "freedm")

PALETTE = {
    "void": (255, 255, 255),
    "low": (244, 222, 179),
    "mid": (247, 197, 159),
    "high": (239, 154, 154),
    "top": (206, 147, 216),
    "outdoor": (165, 214, 167),
    "water": (100, 181, 246),
    "hazard": (212, 225, 87),
    "door": (141, 110, 99),
    "stairs": (255, 183, 77),
    "dark": (176, 190, 197),
    "wall": (38, 50, 56),
    "edge": (120, 120, 120),
}
"""Class name to RGB colour; a class's position is its palette index in the PNG files."""

CLASS = {name: index for index, name in enumerate(PALETTE)}

UNITS_PER_PIXEL = 4.0
MARGIN = 64  # map units left empty around a map
WINDOW = 256  # pixels
STRIDE = 128  # pixels
SCANLINE_OFFSET = 0.5 + 1e-4  # pixels; just past the pixel centre, so that no vertex lies on it

STEP_HEIGHT = 24  # map units; the highest step that a player can climb
STAIRS_MAX_AREA = 64 * 160  # square map units
DARK_LIGHT = 112  # light levels below this are dark
HAZARD_TEXTURES = ("NUKAGE", "LAVA", "BLOOD", "SLIME0")

WALL_WIDTH = 3  # pixels
EDGE_WIDTH = 1  # pixels

MIN_COVERAGE = 0.55  # share of a window's pixels that are not void
MIN_CLASSES = 4  # classes with more than CLASS_PIXELS pixels in a window, void included
CLASS_PIXELS = 100
MIN_LINES = 0.035  # share of a window's pixels that are wall or edge

SPLIT_PERIOD = 5
SPLIT_TEST = 2  # of each SPLIT_PERIOD maps, this one (from 0) is held out


class IndexEntry(TypedDict):
    """One line of `index.json`; `cov` is the share of pixels that are not void."""

    file: str
    wad: str
    map: str
    cov: float
    split: str


def to_pixels(doom_map: DoomMap) -> tuple[npt.NDArray[Any], tuple[int, int]]:
    """Return the vertices in pixels, float32 `(V, 2)`, and the drawing's `(height, width)`.

    The y axis still points north: row 0 of the drawing is the southern edge.
    """
    low = doom_map.vertices.min(axis=0) - MARGIN
    high = doom_map.vertices.max(axis=0) + MARGIN
    width, height = np.ceil((high - low) / UNITS_PER_PIXEL).astype(int)
    return (doom_map.vertices - low) / UNITS_PER_PIXEL, (int(height), int(width))


def fill_sectors(
    doom_map: DoomMap, points: npt.NDArray[Any], shape: tuple[int, int]
) -> npt.NDArray[Any]:
    """Return the sector of every pixel, int32 `(height, width)`, -1 outside the map.

    Each sector is filled between its boundary lines by the even-odd rule, one scanline a pixel
    row. `points` are the vertices in pixels. Where sectors overlap, the later one wins.
    """
    grid = np.full(shape, -1, np.int32)
    starts = points[doom_map.linedefs["start"]]
    ends = points[doom_map.linedefs["end"]]
    for sector in np.unique(np.concatenate([doom_map.front_sector, doom_map.back_sector])):
        if sector < 0:
            continue
        # A line with the sector on both sides is no boundary of it.
        boundary = (doom_map.front_sector == sector) ^ (doom_map.back_sector == sector)
        if boundary.sum() >= 3:
            _fill_polygon(grid, starts[boundary], ends[boundary], int(sector))
    return grid


def _fill_polygon(
    grid: npt.NDArray[Any], starts: npt.NDArray[Any], ends: npt.NDArray[Any], value: int
) -> None:
    """Write `value` into `grid` inside the lines from `starts` to `ends`, `(N, 2)` in pixels."""
    height, width = grid.shape
    lowest = min(starts[:, 1].min(), ends[:, 1].min())
    highest = max(starts[:, 1].max(), ends[:, 1].max())
    first = max(0, int(np.floor(lowest)))
    last = min(height - 1, int(np.ceil(highest)))
    for row in range(first, last + 1):
        scanline = row + SCANLINE_OFFSET
        crossed = (starts[:, 1] <= scanline) != (ends[:, 1] <= scanline)
        if not crossed.any():
            continue
        start = starts[crossed]
        end = ends[crossed]
        along = (scanline - start[:, 1]) / (end[:, 1] - start[:, 1])
        crossings = np.sort(start[:, 0] + along * (end[:, 0] - start[:, 0]))
        columns = np.clip(np.ceil(crossings - 0.5).astype(int), 0, width)
        # An unclosed sector can leave an odd crossing over: it is dropped.
        for left, right in zip(columns[0::2], columns[1::2], strict=False):
            grid[row, left:right] = value


def classify_sectors(doom_map: DoomMap, grid: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the class of every sector, int `(S,)`, given the sector of every pixel.

    The first rule that holds decides. Floor heights are compared with the map's mean floor
    height, weighted by area.
    """
    sectors = doom_map.sectors
    pixels = np.bincount(grid[grid >= 0], minlength=len(sectors))
    area = pixels * UNITS_PER_PIXEL**2
    floor = sectors["floor_height"].astype(float)
    mean_floor = float(np.average(floor, weights=np.maximum(area, 1)))
    steps = _count_steps(doom_map)

    classes = np.full(len(sectors), CLASS["mid"])
    for index, sector in enumerate(sectors):
        texture = sector["floor_texture"].decode("latin-1").upper()
        if sector["ceiling_height"] <= sector["floor_height"]:
            name = "door"
        elif texture.startswith("FWATER"):
            name = "water"
        elif texture.startswith(HAZARD_TEXTURES):
            name = "hazard"
        elif area[index] < STAIRS_MAX_AREA and steps[index] >= 2:
            name = "stairs"
        elif sector["ceiling_texture"].startswith(b"F_SKY"):
            name = "outdoor"
        elif sector["light"] < DARK_LIGHT:
            name = "dark"
        else:
            name = floor_class(floor[index] - mean_floor)
        classes[index] = CLASS[name]
    return classes


def _count_steps(doom_map: DoomMap) -> npt.NDArray[Any]:
    """Count, for every sector, the lines across which the floor makes a step one can climb."""
    floor = doom_map.sectors["floor_height"].astype(int)
    steps = np.zeros(len(floor), int)
    for front, back in zip(doom_map.front_sector, doom_map.back_sector, strict=True):
        if front < 0 or back < 0:
            continue
        if 0 < abs(floor[front] - floor[back]) <= STEP_HEIGHT:
            steps[front] += 1
            steps[back] += 1
    return steps


def floor_class(height: float) -> str:
    """Name the class of a plain floor `height` map units above the map's mean floor."""
    if height < -40:
        return "low"
    if height <= 40:
        return "mid"
    if height < 120:
        return "high"
    return "top"


def draw_lines(image: Image.Image, doom_map: DoomMap, points: npt.NDArray[Any]) -> None:
    """Draw walls, and the edges of steps too high to climb, over a palette-index image."""
    draw = ImageDraw.Draw(image)
    floor = doom_map.sectors["floor_height"].astype(int)
    lines = zip(doom_map.linedefs, doom_map.front_sector, doom_map.back_sector, strict=True)
    for line, front, back in lines:
        start_x, start_y = points[line["start"]].tolist()
        end_x, end_y = points[line["end"]].tolist()
        ends = (start_x, start_y, end_x, end_y)
        if front < 0 or back < 0:
            draw.line(ends, fill=CLASS["wall"], width=WALL_WIDTH)
        elif abs(floor[front] - floor[back]) > STEP_HEIGHT:
            draw.line(ends, fill=CLASS["edge"], width=EDGE_WIDTH)


def draw_map(doom_map: DoomMap) -> npt.NDArray[Any]:
    """Return the map's plan as palette indices, uint8 `(height, width)`, north at the top."""
    points, shape = to_pixels(doom_map)
    grid = fill_sectors(doom_map, points, shape)
    classes = classify_sectors(doom_map, grid)
    plan = np.where(grid >= 0, classes[np.maximum(grid, 0)], CLASS["void"]).astype(np.uint8)
    image = Image.fromarray(plan)
    draw_lines(image, doom_map, points)
    return np.asarray(image)[::-1]


def cut_windows(plan: npt.NDArray[Any]) -> list[tuple[int, int, npt.NDArray[Any]]]:
    """Return the `(row, column, window)` of every window kept; row and column count strides.

    The plan is first padded with void by half a window at the top and left and by a whole window
    at the bottom and right.
    """
    padding = (WINDOW // 2, WINDOW)
    padded = np.pad(plan, (padding, padding), constant_values=CLASS["void"])
    height, width = padded.shape
    windows = []
    for row, top in enumerate(range(0, height - WINDOW + 1, STRIDE)):
        for column, left in enumerate(range(0, width - WINDOW + 1, STRIDE)):
            window = padded[top : top + WINDOW, left : left + WINDOW]
            if is_kept(window):
                windows.append((row, column, window))
    return windows


def coverage(window: npt.NDArray[Any]) -> float:
    """Return the share of the window's pixels that are not void."""
    return float((window != CLASS["void"]).mean())


def is_kept(window: npt.NDArray[Any]) -> bool:
    """Tell whether a window shows enough of the map, enough classes and enough lines."""
    counts = np.bincount(window.ravel(), minlength=len(PALETTE))
    present = int((counts > CLASS_PIXELS).sum())
    lines = (counts[CLASS["wall"]] + counts[CLASS["edge"]]) / window.size
    return coverage(window) >= MIN_COVERAGE and present >= MIN_CLASSES and bool(lines >= MIN_LINES)


def save_window(window: npt.NDArray[Any], path: Path) -> None:
    """Write palette indices, uint8 `(WINDOW, WINDOW)`, as a paletted PNG file."""
    colours = [value for colour in PALETTE.values() for value in colour]
    image = Image.fromarray(np.ascontiguousarray(window))
    image.putpalette(colours + [0] * (768 - len(colours)))
    image.save(path, optimize=True)


def split_maps(maps: set[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Assign each `(wad, map)` to `train` or `test`: of each five in sorted order, the third."""
    return {
        key: "test" if position % SPLIT_PERIOD == SPLIT_TEST else "train"
        for position, key in enumerate(sorted(maps))
    }


def render(wads: Path, out: Path) -> list[IndexEntry]:
    """Render the maps of the WADs in `wads` into `out` and return the index written there."""
    paths = {name: wads / f"{name}.wad" for name in WADS}
    for path in paths.values():
        if not path.is_file():
            raise WadError(f"no such WAD file: {path}")
    out.mkdir(parents=True, exist_ok=True)

    index: list[IndexEntry] = []
    for wad, path in paths.items():
        for doom_map in read_maps(path):
            for row, column, window in cut_windows(draw_map(doom_map)):
                file = f"{wad}_{doom_map.name}_{row:02d}_{column:02d}.png"
                save_window(window, out / file)
                index.append(
                    {
                        "file": file,
                        "wad": wad,
                        "map": doom_map.name,
                        "cov": round(coverage(window), 3),
                        "split": "",
                    }
                )
    # Maps that gave no window take no part in the split, so it waits until all are rendered.
    splits = split_maps({(entry["wad"], entry["map"]) for entry in index})
    for entry in index:
        entry["split"] = splits[entry["wad"], entry["map"]]
    (out / "index.json").write_text(json.dumps(index), encoding="utf-8")
    return index


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Render the floor plans of Freedoom's maps.")
    parser.add_argument(
        "--wads",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder that holds freedoom1.wad, freedoom2.wad and freedm.wad",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder for the PNG files and index.json; made if absent",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Render the data set, print its counts and return the exit status."""
    arguments = parse_arguments()
    try:
        index = render(arguments.wads, arguments.out)
    except (WadError, OSError) as error:
        print(f"render_plans: {error}", file=sys.stderr)
        return 1
    for split in ("train", "test"):
        entries = [entry for entry in index if entry["split"] == split]
        maps = {(entry["wad"], entry["map"]) for entry in entries}
        print(f"{split}: {len(entries)} images of {len(maps)} maps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
