"""Text encoders of transformers itself, where the extra text is installed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from refusal import refusal
from safetensors.torch import load_file, save_file
from tiny_texts import TOKENS, save_encoder

from advloop.models.text_encoder import embed_captions, export_text_encoder, load_text_encoder

TEXTS = ["a cat", "two cats", "cat a", "a very long caption of many letters"]


@pytest.fixture(scope="module", params=["clip", "t5"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "sd")
    return tmp_path / "sd"


def embedded(folder: Path, texts: list[str] = TEXTS, size: int = 32) -> tuple[torch.Tensor, int]:
    return embed_captions(*load_text_encoder(folder), texts, size, lambda parts: parts)


def test_each_caption_is_embedded_as_transformers_does_it_and_the_empty_one_is_last(
    saved,
):
    found, cut = embedded(saved, size=2)
    assert found.shape == (5, TOKENS, 8)
    assert found.dtype == torch.float32
    assert cut == 1
    tokenizer, encoder = load_text_encoder(saved)
    for text, own in zip([*TEXTS, ""], found, strict=True):
        short = tokenizer(text, truncation=True, max_length=TOKENS, return_tensors="pt")
        with torch.no_grad():
            expected = encoder(**short).last_hidden_state[0]
        torch.testing.assert_close(own[: len(expected)], expected, rtol=1e-4, atol=1e-5)
    assert len({tuple(row.flatten().tolist()) for row in found}) == 5


def test_half_precision_sharded_or_flat_folders_are_the_same_encoder(folder, tmp_path):
    expected, _ = embedded(folder)
    flat = tmp_path / "flat"
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(folder / part, flat, dirs_exist_ok=True)
    assert torch.equal(embedded(flat)[0], expected)
    place = folder / "text_encoder"
    tensors = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    shards = {f"model-0000{k}-of-00002.safetensors": list(tensors)[k - 1 :: 2] for k in (1, 2)}
    for shard, names in shards.items():
        save_file({name: tensors[name] for name in names}, place / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {n: shard for shard, ns in shards.items() for n in ns}}
    (place / "model.safetensors.index.json").write_text(json.dumps(index))
    assert torch.equal(embedded(folder)[0], expected)
    export_text_encoder(folder, tmp_path / "exported")
    assert torch.equal(embedded(tmp_path / "exported")[0], expected)
    for path in place.glob("model*"):
        path.unlink()
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, place / "model.fp16.safetensors", metadata={"format": "pt"})
    found, _ = embedded(folder)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_an_exported_encoder_is_in_float32_whatever_its_files_are_and_has_the_same_bytes_again(
    folder, tmp_path
):
    place = folder / "text_encoder"
    tensors = load_file(place / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(halves, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((place / "config.json").read_text()) | {"dtype": "float16"}
    (place / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.py"}}))
    (place / "evil.py").touch()
    (folder / "tokenizer/evil.py").touch()
    index = export_text_encoder(folder, tmp_path / "one")
    assert export_text_encoder(folder, tmp_path / "other") == index
    one, other = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")}
        for name in ("one", "other")
    )
    assert one == other
    assert not any(path.suffix == ".py" for path in one)
    assert b"auto_map" not in b"".join(one.values())
    exported = load_file(tmp_path / "one/text_encoder/model.safetensors")
    assert all(torch.equal(exported[name], tensor.float()) for name, tensor in halves.items())
    assert torch.equal(embedded(tmp_path / "one")[0], embedded(folder)[0])


def put(path: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).write_text(content) and None


def remove(pattern: str) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        for path in folder.glob(pattern):
            path.unlink()

    return plant


def weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        file = folder / "text_encoder/model.safetensors"
        changed = {name: change(tensor) for name, tensor in load_file(file).items()}
        save_file(changed, file, metadata={"format": "pt"})

    return plant


def config(**changes: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        file = folder / "text_encoder/config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return plant


BAD = {
    "no weights": (remove("text_encoder/model*"), "it holds no model.safetensors"),
    "a pickle alone": (
        lambda f: (f / "text_encoder/model.safetensors").rename(f / "text_encoder/model.bin"),
        "damaged",
    ),
    "damaged weights": (put("text_encoder/model.safetensors", "text"), "damaged"),
    "a pointer": (put("text_encoder/model.safetensors", "version https://git-lfs"), "git lfs pull"),
    "NaN": (weights(lambda tensor: tensor / 0), "NaN or infinity"),
    "another shape": (weights(lambda tensor: tensor[:1].contiguous()), "do not match its config"),
    "another kind": (config(model_type="bert"), "its model_type is bert"),
    "fewer tokens": (config(vocab_size=3), ""),
    "no tokenizer": (remove("tokenizer/*"), "holds no tokenizer"),
    "a damaged tokenizer": (put("tokenizer/tokenizer.json", "{"), ""),
}


@pytest.mark.parametrize(("plant", "says"), BAD.values(), ids=BAD)
def test_an_unusable_encoder_is_one_line(folder, plant, says):
    plant(folder)
    message = refusal(load_text_encoder, folder)
    assert message.startswith(f"data.text_encoder={folder}: not a text encoder of this project (")
    assert says in message


def test_transformers_that_is_not_installed_is_one_line_that_says_how(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "t5", "d_model": 8}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = refusal(load_text_encoder, tmp_path)
    assert "run `uv sync --extra text`, or set data.captions=null" in message
