"""The file of captions' embeddings, and the networks that get them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from refusal import refusal
from safetensors.torch import load_file, save_file
from tiny_denoisers import tiny_denoiser

from advloop.data.classes import Classes
from advloop.models.caption_table import load_captions, save_captions
from advloop.models.conditions import condition, load_conditioned
from advloop.models.denoiser import Denoiser, save_checkpoint

NAMES = ("a cat", "two cats", "猫")
EMBEDDINGS = torch.arange(4 * 5 * 8).view(4, 5, 8).float()
LABELS = {split: torch.arange(3) for split in ("train", "val", "test")}
CAPTIONS, CLASSES = Classes(NAMES, LABELS, captions=True), Classes(NAMES, LABELS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_captions(tmp_path / "captions.safetensors", EMBEDDINGS, NAMES)
    return tmp_path / "captions.safetensors"


def test_a_label_gets_the_embedding_of_its_caption_and_the_last_one_that_of_none(path, tmp_path):
    table = load_captions(path, NAMES)
    assert (table.count, table.width) == (3, 8)
    assert torch.equal(table(torch.tensor([2, 3, 2])), EMBEDDINGS[[2, 3, 2]])
    save_captions(tmp_path / "again", EMBEDDINGS.clone(), list(NAMES))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "names", [NAMES[::-1], NAMES[1:], (*NAMES, "another"), ("a cat", "two cats", "dog"), ()]
)
def test_embeddings_of_other_captions_than_the_latents_are_refused(path, names):
    message = refusal(load_captions, path, names)
    assert message.startswith(f"{path}: not the embeddings of this run's captions (it is of other")


DAMAGE: dict[str, Any] = {
    "halves": {"embeddings": EMBEDDINGS.half()},
    "flat": {"embeddings": EMBEDDINGS.flatten(1)},
    "NaN": {"embeddings": EMBEDDINGS / 0},
    "no name": {"captions": torch.zeros(32)},
}


@pytest.mark.parametrize("damage", [*DAMAGE.values(), None, b"", b"text"], ids=str)
def test_damaged_embeddings_are_one_line(path, damage):
    if isinstance(damage, dict):
        save_file(load_file(path) | damage, path)
    elif damage is None:
        path.unlink()
    else:
        path.write_bytes(damage)
    assert refusal(load_captions, path, NAMES).startswith(f"{path}: not the embeddings of this run")


def network(name: str = "text unet", **changes: Any) -> Denoiser:
    model = tiny_denoiser(name)
    model.captions = None
    model.config |= changes
    return model


def test_a_network_of_texts_knows_the_captions_of_the_run_and_is_the_same_with_them(path, tmp_path):
    save_checkpoint(tmp_path / "checkpoint.pt", network())
    model = load_conditioned(tmp_path / "checkpoint.pt", CAPTIONS, path).eval()
    assert (model.num_classes, model.null_label) == (3, 3)
    noisy, times = torch.randn(2, 4, 8, 8), torch.tensor([3, 500])
    expected = model.network(noisy, times, EMBEDDINGS[[1, 3]]).sample
    assert torch.equal(model(noisy, times, torch.tensor([1, 3])), expected)


@pytest.mark.parametrize(
    ("model", "classes", "captions", "says"),
    [
        (network, None, True, "m: is a UNet2DConditionModel: text conditions need data.capt"),
        (
            network,
            CLASSES,
            True,
            "m: is a UNet2DConditionModel: text conditions need data.capt",
        ),
        (
            lambda: network("dit"),
            CAPTIONS,
            True,
            "m: is a DiTTransformer2DModel, which takes",
        ),
        (
            lambda: network("unet with classes"),
            CAPTIONS,
            True,
            "m: is a UNet2DModel, which takes",
        ),
        (network, CAPTIONS, False, "params.yaml: data.captions needs --captions, which"),
        (
            lambda: network(cross_attention_dim=16),
            CAPTIONS,
            True,
            "m: takes embeddings of 16 values (cross_attention_dim), but",
        ),
        (lambda: network("unet"), CLASSES, True, "m: knows 0 classes"),
    ],
)
def test_networks_and_runs_of_different_conditions_are_one_line(
    path, model, classes, captions, says
):
    message = refusal(condition, Path("m"), model(), classes, path if captions else None)
    assert message.startswith(says)
