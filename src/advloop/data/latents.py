"""Latents in files: their scale, reading, writing with bounded memory, and rows of several files.

Latents are float32 (N, C, H, W) in scaled units, see ``advloop.models.codec``.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, Union

import torch

from advloop.core.distributed import broadcast_from_main
from advloop.core.errors import UserError
from advloop.core.files import disk_errors, load_tensor, read_json, reserve, save_torch
from advloop.core.processes import is_main_process
from advloop.infra.snapshots import RowProgress

Scale: TypeAlias = float | tuple[float, ...]
"""A number for all channels of the latents, or one for each."""


def read_scale(path: Path) -> tuple[Scale, Scale]:
    """Scale and shift of the latents, as stage encode_dataset wrote them; or UserError."""
    content = read_json(path)
    values = content if isinstance(content, dict) else {}
    scale, shift = values.get("latent_scale"), values.get("latent_shift")
    if not all(isinstance(one, float) and 0 < one < math.inf for one in _numbers(scale)):
        raise UserError(f"{path}: latent_scale={scale} must be positive; run `dvc repro`")
    if not all(isinstance(one, float) and math.isfinite(one) for one in _numbers(shift)):
        raise UserError(f"{path}: latent_shift={shift} must be a number; run `dvc repro`")
    if isinstance(scale, float) and isinstance(shift, float):
        return scale, shift
    scales, shifts = tuple(_numbers(scale)), tuple(_numbers(shift))
    if [len(scales), len(shifts)] != [values.get("latent_shape", [None])[0]] * 2:
        raise UserError(
            f"{path}: latent_scale and latent_shift must have a number for each channel; run "
            "`dvc repro`"
        )
    return scales, shifts


def _numbers(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def load_latents(path: Path, shape: tuple[int, int, int] | None = None) -> torch.Tensor:
    """At least one latent (N, C, H, H), memory-mapped; UserError otherwise.

    shape: (C, H, H) that the model takes, None if any will do.
    """
    latents = load_tensor(path)
    if len(latents) == 0:
        raise UserError(f"{path}: holds no latent; remake it with `dvc repro`")
    if shape is not None and tuple(latents.shape[1:]) != tuple(shape):
        raise UserError(
            f"{path}: latents {list(latents.shape[1:])} are not the {list(shape)} that the model "
            "takes; it is of another scale, remake it with `dvc repro`"
        )
    if latents.shape[2] != latents.shape[3]:
        raise UserError(
            f"{path}: latents {list(latents.shape[1:])} are not square; remake it with `dvc repro`"
        )
    return latents


class TensorWriter:
    """Fill a (N, C, H, W) float32 ``.pt`` file batch by batch with bounded memory.

    Rows go into a memory-mapped scratch file, so that memory holds one batch whatever N is; at the
    end the mapping is saved in ``torch.save``'s format. With ``progress`` the scratch file
    outlives a crash, and ``filled`` starts at the row that comes next. If several processes share
    a stage, the main process writes and the others only count.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], progress: RowProgress | None = None
    ) -> None:
        self.path, self._progress, self.filled = path, progress, 0
        if is_main_process():
            self._open(shape)
        self.filled = broadcast_from_main(self.filled)

    def _open(self, shape: tuple[int, ...]) -> None:
        path, progress = self.path, self._progress
        size = 4 * int(torch.Size(shape).numel())
        scratch = progress.resume.scratch(path.name) if progress else None
        self._keep = scratch is not None
        with disk_errors(path):
            if scratch is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=".scratch.", dir=path.parent)
                os.close(handle)
                scratch = Path(name)
            elif progress and scratch.exists() and scratch.stat().st_size == size:
                self.filled = progress.filled.get(path.name, 0)
            self._scratch = scratch
            try:
                reserve(scratch, size)
            except OSError:
                scratch.unlink()
                raise
        self.rows = torch.from_file(
            str(scratch), shared=True, size=size // 4, dtype=torch.float32
        ).view(shape)

    def append(self, rows: torch.Tensor) -> None:
        """Write the next rows (B, C, H, W), of any type and device."""
        if is_main_process():
            self.rows[self.filled : self.filled + len(rows)] = rows.detach().float().cpu()
        self.filled += len(rows)
        if is_main_process() and self._progress:
            self._progress.advance(self.path.name, self.filled, self._flush)

    def _flush(self) -> None:
        with self._scratch.open("rb") as file:
            os.fsync(file.fileno())

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if not is_main_process():
            return
        try:
            if failure is None:
                assert self.filled == len(self.rows), (self.filled, len(self.rows))
                save_torch(self.path, self.rows)
        finally:
            if not self._keep:
                self._scratch.unlink(missing_ok=True)


Rows: TypeAlias = Union[torch.Tensor, "Gathered"]
"""Latents (N, C, H, W) that a slice or a tensor of rows indexes."""


class Gathered:
    """Rows of several tensors (N_k, C, H, W), one after another, copied only when indexed.

    The tensors may be memory-mapped files: memory holds what an index asks for, however long they
    are. Gathering gathered rows refers to the original tensors, so that a lookup stays one step.
    """

    def __init__(self, parts: Sequence[tuple[Rows, torch.Tensor]]) -> None:
        """parts: (source, its rows in the order wanted); the sources agree in (C, H, W)."""
        self._sources: list[torch.Tensor] = []
        source_of, row_of = [], []
        for source, rows in parts:
            if isinstance(source, Gathered):
                indices = torch.tensor([self._index_of(one) for one in source._sources])
                source_of.append(indices[source._source_of[rows]])
                row_of.append(source._row_of[rows])
            else:
                source_of.append(torch.full((len(rows),), self._index_of(source)))
                row_of.append(rows)
        self._source_of: torch.Tensor = torch.cat(source_of)
        self._row_of: torch.Tensor = torch.cat(row_of)
        self.shape: torch.Size = torch.Size([len(self._row_of), *self._sources[0].shape[1:]])
        self.dtype: torch.dtype = self._sources[0].dtype
        self.device = torch.device("cpu")

    def _index_of(self, source: torch.Tensor) -> int:
        """The index of a tensor among the sources, which it joins if it is new."""
        for index, known in enumerate(self._sources):
            if known is source:
                return index
        self._sources.append(source)
        return len(self._sources) - 1

    def __len__(self) -> int:
        return len(self._row_of)

    def __getitem__(self, rows: torch.Tensor | slice) -> torch.Tensor:
        row_of, source_of = self._row_of[rows], self._source_of[rows]
        latents = torch.empty(len(row_of), *self.shape[1:], dtype=self.dtype)
        for index, source in enumerate(self._sources):
            wanted = (source_of == index).nonzero().squeeze(1)
            latents[wanted] = source[row_of[wanted]]
        return latents
