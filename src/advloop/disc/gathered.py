"""Chosen rows of several tensors as one tensor that is never made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, Union

import torch

Rows: TypeAlias = Union[torch.Tensor, "Gathered"]


class Gathered:
    """Rows of sources (N_k, C, H, W), one after another, copied only where they are asked for.

    The sources may be memory-mapped files, so that memory is what a batch takes, whatever their
    length, or gathered themselves. Indexed like a tensor of shape (N, C, H, W), by a slice or a
    tensor of rows.
    """

    def __init__(self, parts: Sequence[tuple[Rows, torch.Tensor]]) -> None:
        """parts: (source, its rows in their order); the sources agree in (C, H, W)."""
        self._sources = [source for source, _ in parts]
        counts = torch.tensor([len(rows) for _, rows in parts])
        self._source_of = torch.arange(len(parts)).repeat_interleave(counts)
        self._row_of = torch.cat([rows for _, rows in parts])
        self.shape: torch.Size = torch.Size([len(self._row_of), *self._sources[0].shape[1:]])
        self.dtype: torch.dtype = self._sources[0].dtype
        self.device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self._row_of)

    def __getitem__(self, rows: torch.Tensor | slice) -> torch.Tensor:
        row_of, source_of = self._row_of[rows], self._source_of[rows]
        latents = torch.empty(len(row_of), *self.shape[1:], dtype=self.dtype)
        for index, source in enumerate(self._sources):
            places = (source_of == index).nonzero().squeeze(1)
            latents[places] = source[row_of[places]]
        return latents
