"""Chosen rows of several tensors as one tensor that is never made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, Union

import torch

Rows: TypeAlias = Union[torch.Tensor, "Gathered"]


class Gathered:
    """Rows of sources (N_k, C, H, W), one after another, copied only where they are asked for.

    The sources may be memory-mapped files, so that memory is what a batch takes, whatever their
    length. A source that is gathered itself is left out for its own: a row is found in one step.
    Indexed like a tensor of shape (N, C, H, W), by a slice or a tensor of rows.
    """

    def __init__(self, parts: Sequence[tuple[Rows, torch.Tensor]]) -> None:
        """parts: (source, its rows in their order); the sources agree in (C, H, W)."""
        self._sources: list[torch.Tensor] = []
        source_of, row_of = [], []
        for source, rows in parts:
            if isinstance(source, Gathered):
                places = torch.tensor([self._place(one) for one in source._sources])
                source_of.append(places[source._source_of[rows]])
                row_of.append(source._row_of[rows])
            else:
                source_of.append(torch.full((len(rows),), self._place(source)))
                row_of.append(rows)
        self._source_of: torch.Tensor = torch.cat(source_of)
        self._row_of: torch.Tensor = torch.cat(row_of)
        self.shape: torch.Size = torch.Size([len(self._row_of), *self._sources[0].shape[1:]])
        self.dtype: torch.dtype = self._sources[0].dtype
        self.device = torch.device("cpu")

    def _place(self, source: torch.Tensor) -> int:
        """Its index among the sources, each of which stands there once."""
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
            places = (source_of == index).nonzero().squeeze(1)
            latents[places] = source[row_of[places]]
        return latents
