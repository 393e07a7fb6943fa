"""Files that are wrong in one way each and functions that plant them in a folder."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

Plant = Callable[[Path], None]
"""Changes a folder, so that one file or value in it is wrong (or merely unusual)."""


# --- Files as bytes ---


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bilevel_png(width: int, height: int, data: bytes = zlib.compress(b"")) -> bytes:
    """A 1-bit PNG that claims a size, whatever the compressed data hold."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        checksum = zlib.crc32(body, zlib.crc32(kind))
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
    return content


def png_bomb(side: int) -> bytes:
    """A whole and valid bilevel PNG of side × side pixels, packed row by row."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    body = b"".join([packer.compress(row) for _ in range(side)] + [packer.flush()])
    return bilevel_png(side, side, body)


def zipped(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of these members, under exactly these names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def encrypted(archive: bytes) -> bytes:
    """The archive, with every member marked as encrypted in both directories."""
    content = bytearray(archive)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = content.find(signature)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(signature, start + 1)
    return bytes(content)


def claiming(archive: bytes, size: int) -> bytes:
    """The archive, whose first member claims in both directories to unpack to ``size``."""
    content = bytearray(archive)
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.find(signature)
        content[start + place : start + place + 4] = struct.pack("<I", size)
    return bytes(content)


def inflating(name: str, mebibytes: int, others: Mapping[str, bytes]) -> bytes:
    """An archive whose first member unpacks to this many MiB of zeros, from a thousandth."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)  # stands alone
    members = {name: block * mebibytes + b"\x03\x00", **others}
    content = bytearray(zipped(members, zipfile.ZIP_STORED))
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.find(signature) + place] = zipfile.ZIP_DEFLATED
    return claiming(bytes(content), mebibytes * 2**20)


class Code:
    """Unpickling it makes the file ``executed`` in the working directory."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)


def pickled(content: Any) -> bytes:
    """``torch.save``, of anything."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


# --- Plants ---


def put(path: str | bytes, content: bytes | str) -> Plant:
    """Write a file, or replace one."""
    name = os.fsdecode(path)
    data = content.encode() if isinstance(content, str) else content

    def plant(root: Path) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).write_bytes(data)

    return plant


def cut(path: str, keep: float = 0.7) -> Plant:
    """Keep the first part of a file."""

    def plant(root: Path) -> None:
        content = (root / path).read_bytes()
        (root / path).write_bytes(content[: int(keep * len(content))])

    return plant


def drop(path: str) -> Plant:
    """Remove a file or a folder."""

    def plant(root: Path) -> None:
        found = root / path
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    return plant


def link(path: str, target: str) -> Plant:
    """A symbolic link in place of ``path``."""

    def plant(root: Path) -> None:
        (root / path).unlink(missing_ok=True)
        (root / path).symlink_to(target)

    return plant


def saved(path: str, content: Any) -> Plant:
    """A file of anything that ``torch.save`` can write."""
    return put(path, pickled(content))


def resaved(path: str, change: Callable[[Any], Any]) -> Plant:
    """Change what a ``.pt`` file holds."""

    def plant(root: Path) -> None:
        content = torch.load(root / path, weights_only=True)
        saved(path, change(content))(root)

    return plant


def edited(path: str, change: Callable[[str], str]) -> Plant:
    """Change a text."""

    def plant(root: Path) -> None:
        put(path, change((root / path).read_text()))(root)

    return plant


def array(path: str, change: Callable[[np.ndarray], np.ndarray]) -> Plant:
    """Change what a ``.npy`` file holds; objects are pickled."""

    def plant(root: Path) -> None:
        content = change(np.load(root / path))
        np.save(root / path, content, allow_pickle=True)

    return plant


def both(*plants: Plant) -> Plant:
    def plant(root: Path) -> None:
        for one in plants:
            one(root)

    return plant


def param(key: str, value: Any) -> Plant:
    """Set a dotted key of params.yaml, whether it is a parameter or not."""

    def plant(root: Path) -> None:
        content = OmegaConf.load(root / "params.yaml")
        OmegaConf.update(content, key, value, merge=False, force_add=True)
        OmegaConf.save(content, root / "params.yaml")

    return plant
