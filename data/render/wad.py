"""Read maps from Doom-format WAD files.

A WAD is a header, a set of byte blocks ("lumps") and a directory that names them. A map is a
marker lump (`E1M1`, `MAP01`) followed by lumps that hold its vertices, lines, sides and sectors.
Only the original Doom format is read: Hexen-format maps (16-byte lines) are left out.

Lengths and heights are in map units; light levels run from 0 (black) to 255.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NO_SIDE = 65535
"""The sidedef index that means "no side here"."""

MAP_NAME = re.compile(r"E\dM\d|MAP\d\d")
LUMPS_PER_MAP = 10

HEADER = struct.Struct("<4sii")
DIRECTORY_ENTRY = struct.Struct("<ii8s")

LINEDEF_DTYPE = np.dtype(
    [
        ("start", "<u2"),
        ("end", "<u2"),
        ("flags", "<u2"),
        ("special", "<u2"),
        ("tag", "<u2"),
        ("front", "<u2"),
        ("back", "<u2"),
    ]
)
SIDEDEF_DTYPE = np.dtype(
    [
        ("x_offset", "<i2"),
        ("y_offset", "<i2"),
        ("upper", "S8"),
        ("lower", "S8"),
        ("middle", "S8"),
        ("sector", "<u2"),
    ]
)
SECTOR_DTYPE = np.dtype(
    [
        ("floor_height", "<i2"),
        ("ceiling_height", "<i2"),
        ("floor_texture", "S8"),
        ("ceiling_texture", "S8"),
        ("light", "<i2"),
        ("special", "<u2"),
        ("tag", "<u2"),
    ]
)


class WadError(Exception):
    """A file is missing, or is not a WAD that this module can read."""


@dataclass(frozen=True)
class DoomMap:
    """The geometry of one map.

    Attributes:
        name: The marker lump's name, such as `E1M1` or `MAP01`.
        vertices: float32 `(V, 2)`, x to the east and y to the north, in map units.
        linedefs: `(L,)` records of `LINEDEF_DTYPE`; `start` and `end` index `vertices`.
        sectors: `(S,)` records of `SECTOR_DTYPE`; heights in map units.
        front_sector: int `(L,)`, the sector on each line's right side, -1 where there is none.
        back_sector: int `(L,)`, the sector on each line's left side, -1 where there is none.
    """

    name: str
    vertices: npt.NDArray[Any]
    linedefs: npt.NDArray[Any]
    sectors: npt.NDArray[Any]
    front_sector: npt.NDArray[Any]
    back_sector: npt.NDArray[Any]


def read_lumps(path: Path) -> list[tuple[str, bytes]]:
    """Return the `(name, bytes)` lumps of a WAD file, in directory order."""
    if not path.is_file():
        raise WadError(f"no such WAD file: {path}")
    data = path.read_bytes()
    if len(data) < HEADER.size or data[:4] not in (b"IWAD", b"PWAD"):
        raise WadError(f"not a WAD file: {path}")
    _, count, directory = HEADER.unpack_from(data, 0)
    if count < 0 or directory < 0 or directory + count * DIRECTORY_ENTRY.size > len(data):
        raise WadError(f"truncated WAD file: {path}")
    lumps = []
    for index in range(count):
        offset = directory + index * DIRECTORY_ENTRY.size
        position, size, raw_name = DIRECTORY_ENTRY.unpack_from(data, offset)
        name = raw_name.split(b"\0")[0].decode("latin-1")
        lumps.append((name, data[position : position + size]))
    return lumps


def read_maps(path: Path) -> list[DoomMap]:
    """Return the Doom-format maps of a WAD file, in the order in which they are stored."""
    lumps = read_lumps(path)
    maps: dict[str, DoomMap] = {}
    for index, (name, _) in enumerate(lumps):
        if not MAP_NAME.fullmatch(name):
            continue
        map_lumps = dict(lumps[index + 1 : index + 1 + LUMPS_PER_MAP])
        if "LINEDEFS" not in map_lumps:
            continue
        if len(map_lumps["LINEDEFS"]) % LINEDEF_DTYPE.itemsize != 0:
            continue
        try:
            maps[name] = parse_map(name, map_lumps)
        except (KeyError, ValueError, IndexError) as error:
            raise WadError(f"cannot parse map {name} of {path}: {error}") from error
    return list(maps.values())


def parse_map(name: str, lumps: dict[str, bytes]) -> DoomMap:
    """Build a `DoomMap` from the lumps `VERTEXES`, `LINEDEFS`, `SIDEDEFS` and `SECTORS`."""
    vertices = np.frombuffer(lumps["VERTEXES"], "<i2").reshape(-1, 2).astype(np.float32)
    linedefs = np.frombuffer(lumps["LINEDEFS"], LINEDEF_DTYPE)
    sidedefs = np.frombuffer(lumps["SIDEDEFS"], SIDEDEF_DTYPE)
    sectors = np.frombuffer(lumps["SECTORS"], SECTOR_DTYPE)
    return DoomMap(
        name=name,
        vertices=vertices,
        linedefs=linedefs,
        sectors=sectors,
        front_sector=_sector_of_side(linedefs["front"], sidedefs),
        back_sector=_sector_of_side(linedefs["back"], sidedefs),
    )


def _sector_of_side(side: npt.NDArray[Any], sidedefs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the sector that each sidedef index faces, -1 for `NO_SIDE`."""
    within = np.minimum(side, len(sidedefs) - 1)
    return np.where(side != NO_SIDE, sidedefs["sector"][within].astype(int), -1)
