"""The embeddings of a run's captions, one for each label, and the file that holds them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from advloop.core.errors import UserError
from advloop.core.files import write_bytes


class CaptionTable:
    """Labels to embeddings of captions: row k of ``embeddings`` (K + 1, L, D) is label k's.

    The last row is the empty caption's, which stands for none. Copies of a model share a table.
    """

    def __init__(self, embeddings: torch.Tensor) -> None:
        self.embeddings = embeddings

    def __deepcopy__(self, memo: dict[int, Any]) -> CaptionTable:
        return self

    @property
    def count(self) -> int:
        """Number K of captions, which is the label of the empty one."""
        return len(self.embeddings) - 1

    @property
    def width(self) -> int:
        """D, the values of a token."""
        return int(self.embeddings.shape[2])

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """Embeddings (B, L, D) of labels (B,), on the labels' device.

        The table stays in its file: those of thousands of captions would fill a GPU.
        """
        return self.embeddings[labels.cpu()].to(labels.device)


def save_captions(path: Path, embeddings: torch.Tensor, captions: Sequence[str]) -> None:
    """Write embeddings (K + 1, L, D) float32 of K captions, in this order, and of the empty one."""
    from safetensors.torch import save

    write_bytes(path, save({"embeddings": embeddings, "captions": _digest(captions)}))


def load_captions(path: Path, captions: Sequence[str]) -> CaptionTable:
    """The table, memory-mapped; UserError unless it is of these captions, in this order."""
    from safetensors.torch import load_file

    try:
        content = load_file(path)
        embeddings, digest = content["embeddings"], content["captions"]
        if embeddings.ndim != 3 or embeddings.dtype != torch.float32:
            raise ValueError("its embeddings are not (K, L, D) float32")
        if len(embeddings) != len(captions) + 1 or not torch.equal(digest, _digest(captions)):
            raise ValueError("it is of other captions than the latents")
        if not bool(torch.isfinite(embeddings.sum())):
            raise ValueError("it holds NaN or infinity")
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(
            f"{path}: not the embeddings of this run's captions ({error}); make it with `dvc repro`"
        ) from None
    return CaptionTable(embeddings)


def _digest(captions: Sequence[str]) -> torch.Tensor:
    """SHA-256 (32,) uint8: labels are numbers, and nothing else says of which captions."""
    return torch.tensor(list(hashlib.sha256(json.dumps(list(captions)).encode()).digest())).byte()
