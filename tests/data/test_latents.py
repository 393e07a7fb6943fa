"""Latents on disk: a scale, rows in order, whole files or none, and rows of several tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from refusal import refusal
from small_discriminator import fit, side

from advloop.core.files import save_torch, write_json
from advloop.data.latents import Gathered, TensorWriter, load_latents, read_scale

LATENTS = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0))


# --- Scale ---


@pytest.mark.parametrize(
    "content",
    ["{}", "[]", "null", "1.0", "{", '{"latent_scale": 1.0}']
    + [
        f'{{"latent_scale": {scale}, "latent_shift": 0.0}}'
        for scale in ("0.0", "-1.0", '"1.0"', "null", "true", "[1.0]", "NaN", "Infinity")
    ]
    + [
        f'{{"latent_scale": {scale}, "latent_shift": {shift}, "latent_shape": [2, 8, 8]}}'
        for scale, shift in (
            ("[1.0, 0.0]", "[1.0, 0.0]"),
            ("[1.0, null]", "[1.0, 0.0]"),
            ("[1.0, 1.0]", "[1.0, NaN]"),
            ("[1.0, 1.0, 1.0]", "[1.0, 1.0, 1.0]"),
            ("[1.0, 1.0]", "0.0"),
            ("1.0", "[1.0, 1.0]"),
            ("[]", "[]"),
        )
    ],
)
def test_scale_that_is_no_positive_number_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "stats.json"
    path.write_text(content)
    message = refusal(read_scale, path)
    assert message.startswith(f"{path}: ")
    assert "dvc repro" in message


def test_scale_and_shift_come_back(tmp_path):
    write_json(tmp_path / "stats.json", {"latent_scale": 0.125, "latent_shift": -0.5, "train": 3})
    assert read_scale(tmp_path / "stats.json") == (0.125, -0.5)


def test_scale_and_shift_of_each_channel_come_back(tmp_path):
    numbers = {"latent_scale": (0.125, 2.0), "latent_shift": (-0.5, 0.0)}
    write_json(tmp_path / "stats.json", numbers | {"latent_shape": [2, 8, 8]})
    assert read_scale(tmp_path / "stats.json") == ((0.125, 2.0), (-0.5, 0.0))


# --- Reading ---


ONE = torch.arange(LATENTS.numel()).view(LATENTS.shape) == 60
BAD = [
    *((LATENTS.to(kind), f"{kind} must be float32") for kind in (torch.float64, torch.int64)),
    *((torch.where(ONE, float(x), LATENTS), "NaN or infinity") for x in ("nan", "inf", "-inf")),
    (LATENTS[:0], "holds no latent"),
    (LATENTS[..., :2], "[2, 3, 2] are not square"),
    *(
        (content, "must hold one tensor (N, C, H, W)")
        for content in (LATENTS[0], LATENTS[None], {"a": LATENTS}, [1, 2], "text", None)
    ),
]


@pytest.mark.parametrize(("content", "says"), BAD)
def test_file_of_anything_but_finite_float32_latents_is_refused(tmp_path, content, says):
    save_torch(tmp_path / "a.pt", content)
    message = refusal(load_latents, tmp_path / "a.pt")
    assert message.startswith(f"{tmp_path / 'a.pt'}: ")
    assert says in message
    assert "dvc repro" in message


def test_latents_of_another_shape_are_refused(tmp_path):
    save_torch(tmp_path / "a.pt", LATENTS)
    assert torch.equal(load_latents(tmp_path / "a.pt", (2, 3, 3)), LATENTS)
    message = refusal(load_latents, tmp_path / "a.pt", (2, 4, 4))
    assert "latents [2, 3, 3] are not the [2, 4, 4]" in message


def test_missing_and_truncated_latents_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    assert f"{path}: not found" in refusal(load_latents, path)
    save_torch(path, LATENTS)
    content = path.read_bytes()
    for share in (0.0, 0.3, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        assert f"{path}: damaged" in refusal(load_latents, path)


# --- Writing ---


def test_rows_wait_in_a_file_and_are_saved_as_a_whole(tmp_path):
    path = tmp_path / "deep" / "a.pt"
    writer = TensorWriter(path, tuple(LATENTS.shape))
    (scratch,) = path.parent.iterdir()
    for part in (LATENTS[:2], LATENTS[2:3]):
        writer.append(part)
    values = torch.from_numpy(np.fromfile(scratch, np.float32)).view(LATENTS.shape)
    assert torch.equal(values[:3], LATENTS[:3])
    assert not values[3:].any()
    with writer:
        writer.append(LATENTS[3:])
    assert [file.name for file in path.parent.iterdir()] == ["a.pt"]
    save_torch(tmp_path / "whole.pt", LATENTS)
    assert path.read_bytes() == (tmp_path / "whole.pt").read_bytes()
    assert torch.equal(load_latents(path), LATENTS)


def test_writer_takes_other_types_and_gradients_as_plain_float32(tmp_path):
    with TensorWriter(tmp_path / "a.pt", (2, 1, 1, 1)) as writer:
        writer.append(torch.ones(1, 1, 1, 1, dtype=torch.bfloat16))
        writer.append(torch.full((1, 1, 1, 1), 2.0, requires_grad=True))
    latents = load_latents(tmp_path / "a.pt")
    assert latents.flatten().tolist() == [1, 2]
    assert not latents.requires_grad


@pytest.mark.parametrize(
    "parts",
    [[LATENTS[:2]], [LATENTS, LATENTS], [LATENTS[:2], LATENTS[..., :2]]],
    ids=["too few rows", "too many", "another shape"],
)
@pytest.mark.parametrize("existing", [{}, {"a.pt": "old"}])
def test_writer_that_fails_leaves_the_old_file_and_no_scratch_file(tmp_path, parts, existing):
    for name, text in existing.items():
        (tmp_path / name).write_text(text)

    def write():
        with TensorWriter(tmp_path / "a.pt", tuple(LATENTS.shape)) as writer:
            for part in parts:
                writer.append(part)

    with pytest.raises((RuntimeError, AssertionError)):
        write()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == existing


# --- Rows of several tensors ---

SOURCES = [torch.randn(9, 2, 3, 3), torch.randn(5, 2, 3, 3), torch.randn(4, 2, 3, 3)]
ROWS = [torch.tensor([8, 0, 3]), torch.tensor([], dtype=torch.long), torch.tensor([2, 2])]
PARTS = list(zip(SOURCES, ROWS, strict=True))
WHOLE = torch.cat([source[rows] for source, rows in PARTS])


@pytest.mark.parametrize(
    "index",
    [slice(None), slice(1, 4), slice(4, 9), torch.tensor([4, 0, 0, 3]), torch.tensor([]).long()],
)
def test_gathered_rows_are_indexed_like_one_tensor_of_them(index):
    gathered = Gathered(PARTS)
    assert len(gathered) == len(WHOLE)
    assert gathered.shape == WHOLE.shape
    assert torch.equal(gathered[index], WHOLE[index])


def test_rows_gathered_from_gathered_rows_are_read_from_the_tensors_themselves():
    first = Gathered(PARTS)
    nested = Gathered([(first, torch.tensor([4, 1])), (SOURCES[0], torch.tensor([5]))])
    outer = Gathered([(nested, torch.tensor([2, 0, 1])), (first, torch.tensor([0]))])
    assert torch.equal(outer[:], torch.stack([SOURCES[0][5], WHOLE[4], WHOLE[1], WHOLE[0]]))
    assert sorted(map(id, outer._sources)) == sorted(map(id, SOURCES))


def test_gathered_rows_are_copied_when_they_are_read():
    source = torch.zeros(3, 1, 1, 1)
    gathered = Gathered([(source, torch.tensor([2, 0]))])
    source[2] = 7
    assert gathered[:].flatten().tolist() == [7, 0]


def test_a_discriminator_trains_to_the_same_weights_on_gathered_rows_as_on_a_tensor():
    train, val = side(0, 40, 0.3), side(1, 16, 0.3)
    order = torch.arange(80)
    halves = [(train.latents, order[:17]), (train.latents.clone(), order[17:])]
    dense, gathered = fit(train, val), fit(replace(train, latents=Gathered(halves)), val)
    assert gathered.history == dense.history
    for name, weight in dense.final.items():
        assert torch.equal(gathered.final[name], weight), name
