"""A denoiser and what a run conditions it on: nothing, classes or captions."""

from __future__ import annotations

from pathlib import Path

from advloop.core.errors import UserError
from advloop.data.classes import Classes, count_classes
from advloop.models.caption_table import load_captions
from advloop.models.denoiser import Denoiser, check_classes, load_checkpoint
from advloop.params.captions import check_width, no_text_model, texts_needed


def load_conditioned(path: Path, classes: Classes | None, captions: Path | None) -> Denoiser:
    """The network of a checkpoint, with what ``condition`` gives it; UserError if unusable."""
    denoiser = load_checkpoint(path)
    condition(path, denoiser, classes, captions)
    return denoiser


def condition(
    path: Path, denoiser: Denoiser, classes: Classes | None, captions: Path | None
) -> None:
    """Give a text-conditional network the embeddings of the run's captions, in file ``captions``.

    UserError if the network is conditioned on something else than the run's images have.
    """
    text = denoiser.architecture.text
    if classes is None or not classes.captions:
        if text:
            raise texts_needed(str(path))
        check_classes(path, denoiser, count_classes(classes))
        return
    if not text:
        raise no_text_model(str(path), denoiser.architecture.class_name)
    if captions is None:
        raise UserError(
            "params.yaml: data.captions needs --captions, which the stage's command lacks; run "
            "`make params`, then `dvc repro`"
        )
    table = load_captions(captions, classes.names)
    wanted = denoiser.architecture.context_width(denoiser.config)
    check_width(path, wanted, captions, table.width)
    denoiser.captions = table
