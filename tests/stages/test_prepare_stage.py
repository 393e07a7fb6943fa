"""Stage prepare says what it leaves out."""

from __future__ import annotations

import json
from pathlib import Path

from _runtime.errors import run_stage

import pytest
from bad_files import encoded, put
from conftest import REPO
from omegaconf import OmegaConf
from PIL import Image

from advloop.data.dataset import load_dataset
from prepare import main

GOOD = encoded(Image.new("RGB", (8, 8), "red"))


def test_stage_names_each_skipped_image_in_one_line_of_stderr_and_says_how_many(
    tmp_path, monkeypatch, capsys
):
    good = [f"{g}/{k}.png" for g in range(20) for k in range(8)] + ["a\nb.png", "\udcff.png"]
    for name in good:
        put(f"images/{name}", GOOD)(tmp_path)
    put("images/3/3.png", b"")(tmp_path)
    (tmp_path / "images/dangling.png").symlink_to("none.png")
    content = OmegaConf.load(REPO / "params.yaml")
    content.data.update(source="images", image_size=8, on_error="skip")
    OmegaConf.save(content, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["prepare.py", "--out", "data"])
    with pytest.raises(SystemExit) as ended:
        run_stage(main)
    assert ended.value.code == 0
    printed = capsys.readouterr()
    lines = sorted(line.removeprefix("skipped: ") for line in printed.err.splitlines())
    assert [line.split(": ")[1] for line in lines[1:]] == ["3/3.png", "\\udcff.png", "a\\nb.png"]
    assert lines[0].startswith("images/dangling.png: cannot be read")
    assert "159 images of 20 groups" in printed.out
    assert "; 4 of 163 skipped" in printed.out
    record = json.loads(Path("data/skipped.json").read_text())
    assert record["count"] == 4
    assert sorted(record["images"].values()) == lines
    assert len(load_dataset(Path("data")).files) == 159
