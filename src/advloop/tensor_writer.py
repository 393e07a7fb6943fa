"""Write many rows of latents to one file with bounded memory."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch

from advloop.core.io import disk_errors, reserve, save_torch
from advloop.core.leader import leads
from advloop.core.ranks import agree
from advloop.core.resume import RowProgress


class TensorWriter:
    """Fill a (N, C, H, W) float32 ``.pt`` file batch by batch with bounded memory.

    The rows live in a memory-mapped scratch file, so that resident memory is one batch
    whatever N is; the end copies the mapping into ``torch.save``'s format. With ``progress``
    the scratch file outlives a crash, and ``filled`` begins where it stopped. Of several
    processes the leader writes; the others count.
    """

    def __init__(
        self, path: Path, shape: tuple[int, ...], progress: RowProgress | None = None
    ) -> None:
        self.path, self._progress, self.filled = path, progress, 0
        if leads():
            self._open(shape)
        self.filled = agree(self.filled)

    def _open(self, shape: tuple[int, ...]) -> None:
        path, progress = self.path, self._progress
        bytes_ = 4 * int(torch.Size(shape).numel())
        kept = progress.resume.scratch(path.name) if progress else None
        self._keep = kept is not None
        with disk_errors(path):
            if kept is None:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(prefix=".scratch.", dir=path.parent)
                os.close(handle)
                kept = Path(name)
            elif progress and kept.exists() and kept.stat().st_size == bytes_:
                self.filled = progress.filled.get(path.name, 0)
            self._scratch = kept
            try:
                reserve(kept, bytes_)
            except OSError:
                kept.unlink()
                raise
        self.rows = torch.from_file(
            str(kept), shared=True, size=bytes_ // 4, dtype=torch.float32
        ).view(shape)

    def append(self, rows: torch.Tensor) -> None:
        if leads():
            self.rows[self.filled : self.filled + len(rows)] = rows.detach().float().cpu()
        self.filled += len(rows)
        if leads() and self._progress:
            self._progress.advance(self.path.name, self.filled, self._flush)

    def _flush(self) -> None:
        with self._scratch.open("rb") as file:
            os.fsync(file.fileno())

    def __enter__(self) -> TensorWriter:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if not leads():
            return
        try:
            if failure is None:
                assert self.filled == len(self.rows), (self.filled, len(self.rows))
                save_torch(self.path, self.rows)
        finally:
            if not self._keep:
                self._scratch.unlink(missing_ok=True)
