"""Colour profiles (ICC, version 2) of a few colour spaces, and PNG files of 16 bits a channel."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np

# Red, green and blue in CIE XYZ, adapted to D50.
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
DISPLAY_P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
D50 = (0.9642, 1.0, 0.8249)


def rgb_profile(primaries: tuple[tuple[float, ...], ...], gamma: float = 2.2) -> bytes:
    tags = {name + b"XYZ": _xyz(of) for name, of in zip((b"r", b"g", b"b"), primaries, strict=True)}
    tags |= {name + b"TRC": _gamma(gamma) for name in (b"r", b"g", b"b")}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)})


def cmyk_profile() -> bytes:
    """Whatever the ink: without black L* is 50, with all of it 0; neutral."""
    table = bytes(range(256))
    corners = b"".join(bytes([0 if k else 128, 128, 128]) for _ in range(8) for k in (0, 1))
    identity = struct.pack(">9i", *(65536 * (k % 4 == 0) for k in range(9)))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity + 4 * table + corners + 3 * table
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": lut})


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in values))


def _gamma(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IHxx", 1, round(256 * gamma))


def _profile(device: bytes, space: bytes, pcs: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    tags = {b"wtpt": _xyz(D50), **tags}
    start, index, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        index += struct.pack(">4sII", name, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    illuminant = struct.pack(">3i", *(round(65536 * value) for value in D50))
    size = start + len(body)
    header = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, device, space, pcs, b"acsp")
    header = header.ljust(68, b"\0") + illuminant
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def deep_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, of values (H, W, C): grey, with alpha, RGB, or with alpha."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return png(("IHDR", header), ("IDAT", zlib.compress(rows)), ("IEND", b""))


def png(*chunks: tuple[str, bytes]) -> bytes:
    """A PNG of these chunks."""
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in chunks:
        name = kind.encode()
        content += struct.pack(">I", len(body)) + name + body
        content += struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
    return content
