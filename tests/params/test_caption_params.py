"""What captions need is refused by the names of parameters, before any model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO
from refusal import refusal
from tiny_denoisers import TINY_DIT, TINY_TEXT_UNET

from advloop.params.captions import check_captions, read_encoder
from advloop.params.loader import Params
from advloop.params.reading import read_mapping

CLIP, T5 = {"model_type": "clip_text_model", "hidden_size": 8}, {"model_type": "t5", "d_model": 8}
SDXL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 256}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("sd/unet", TINY_TEXT_UNET)
    write("sd/text_encoder", CLIP)
    write("dit", TINY_DIT)
    write("xl/unet_ema", TINY_TEXT_UNET | SDXL)
    write("wide", TINY_TEXT_UNET | {"cross_attention_dim": 16})
    write("t5", T5)
    write("other", {"model_type": "bert", "hidden_size": 8})
    Path("checkpoint.pt").touch()


def write(folder: str, config: dict[str, Any]) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    (Path(folder) / "config.json").write_text(json.dumps(config))


def params(base: str | None, classes: str = "none", **data: str | None) -> Params:
    content = read_mapping(REPO / "params.yaml")
    content["data"] = {"captions": None, "text_encoder": None, **content["data"], **data}
    content["data"]["classes"] = classes
    content["base"]["pretrained"] = base
    return Params(content, Path("params.yaml"))


@pytest.mark.parametrize("encoder", ["sd", "sd/text_encoder", "t5"])
@pytest.mark.parametrize("base", ["sd", "sd/unet", "checkpoint.pt"])
def test_a_network_of_texts_runs_with_captions_and_an_encoder_of_its_width(base, encoder):
    check_captions(params(base, captions="text", text_encoder=encoder))


@pytest.mark.parametrize("base", [None, "dit", "checkpoint.pt", "nothing"])
def test_any_other_run_needs_no_captions(base):
    check_captions(params(base))


@pytest.mark.parametrize(
    ("base", "data", "says"),
    [
        (
            "sd",
            {},
            "base.pretrained=sd: is a UNet2DConditionModel: text conditions need data",
        ),
        ("sd", {"text_encoder": "sd"}, "data.text_encoder=sd has no use without data.captions"),
        ("sd", {"captions": "text"}, "data.captions=text needs data.text_encoder"),
        ("sd", {"captions": " "}, "data.captions= must name a column"),
        (
            None,
            {"captions": "text", "text_encoder": "sd"},
            "data.captions=text needs base.pret",
        ),
        (
            "dit",
            {"captions": "text", "text_encoder": "sd"},
            "dit: is a DiTTransformer2DModel, ",
        ),
        ("xl", {"captions": "text", "text_encoder": "sd"}, "xl: its addition_embed_type=text_time"),
        (
            "wide",
            {"captions": "text", "text_encoder": "t5"},
            "takes embeddings of 16 values (",
        ),
        (
            "sd",
            {"captions": "text", "text_encoder": "other"},
            "model_type is bert, not clip_t",
        ),
        (
            "sd",
            {"captions": "text", "text_encoder": "none"},
            "data.text_encoder=none: not a te",
        ),
        (
            "sd",
            {"captions": "text", "text_encoder": "sd", "classes": "folders"},
            "data.captions=text and data.classes=folders exclude each other",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_go_together_is_one_line(base, data, says):
    assert says in refusal(check_captions, params(base, **data))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"model_type": "t5"}', '{"model_type": "t5", "d_model": 1.5}'],
)
def test_a_damaged_config_of_an_encoder_is_one_line(content):
    Path("t5/config.json").write_text(content)
    assert refusal(read_encoder, Path("t5")).startswith("data.text_encoder=t5: not a text encoder")
