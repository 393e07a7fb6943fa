"""Stage prepare says what it leaves out."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from _runtime import caches
from _runtime.errors import run_stage

import pytest
from bad_files import encoded, put
from conftest import REPO
from dvc.repo import Repo
from omegaconf import OmegaConf
from PIL import Image

import check_data
from advloop.data import sizes
from advloop.data.dataset import load_dataset
from prepare import main

GOOD, OTHER = (encoded(Image.new("RGB", (8, 8), colour)) for colour in ("red", "blue"))


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Twenty groups of eight images in folder images of the working directory."""
    for k in range(160):
        put(f"images/{k % 20}/{k // 20}.png", OTHER if k < 80 else GOOD)(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "images"


def run(capsys, **settings):
    """The status of the stage, and what it printed."""
    content = OmegaConf.load(REPO / "params.yaml")
    whole = {"tiles": 1, "max_flat": 1.0}
    content.data.update(source="images", image_size=8, on_error="skip", **whole, **settings)
    OmegaConf.save(content, "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["prepare.py", "--out", "data"])
        with pytest.raises(SystemExit) as ended:
            run_stage(main)
    return ended.value.code, capsys.readouterr()


def test_stage_names_each_skipped_image_in_one_line_of_stderr_and_says_how_many(images, capsys):
    for name in ("a\nb.png", "\udcff.png"):
        put(name, GOOD)(images)
    put("3/3.png", b"")(images)
    (images / "dangling.png").symlink_to("none.png")
    status, printed = run(capsys)
    assert status == 0
    lines = sorted(line.removeprefix("skipped: ") for line in printed.err.splitlines())
    assert [line.split(": ")[1] for line in lines[1:]] == ["3/3.png", "\\udcff.png", "a\\nb.png"]
    assert lines[0].startswith("images/dangling.png: cannot be read")
    assert "159 images of 20 groups" in printed.out
    assert "; 4 of 163 skipped" in printed.out
    record = json.loads(Path("data/skipped.json").read_text())
    assert record["count"] == 4
    assert sorted(record["images"].values()) == lines
    assert len(load_dataset(Path("data")).files) == 159


def test_too_few_images_for_a_later_stage_are_refused_before_and_after_decoding(
    images, capsys, monkeypatch
):
    says = "evaluate.num_seeds=3 needs 180 training images"
    for broken, least in ((1, 60), (60, 30)):  # enough until they are decoded
        for k in range(broken):
            put(f"{k % 20}/{k // 20}.png", b"")(images)
        monkeypatch.setattr(sizes, "MIN_IMAGES", least)
        status, printed = run(capsys)
        assert status == 1
        assert says.replace("180", str(3 * least)) in printed.err
        assert ("skipped" in printed.err) == (least == 30)
        assert not list(Path("data").glob("*"))
    monkeypatch.setattr(sys, "argv", ["check_data.py"])
    monkeypatch.setattr(sizes, "MIN_IMAGES", 60)
    with pytest.raises(SystemExit, match="needs 180 training images"):
        check_data.main()


def test_stage_says_what_it_did_not_use_assumed_or_finds_odd(images, capsys):
    put("a.heic", "?")(images)
    put("b.png", encoded(Image.new("RGB", (8, 8), "green"), icc_profile=b"?"))(images)
    put("c.tif", encoded(Image.linear_gradient("L").convert("F"), "TIFF"))(images)
    status, printed = run(capsys)
    assert (status, printed.err) == (0, "")
    for says in (
        "images in no sub-folder: 2 of 162; each is a group of its own",
        "not used: 1 .heic",
        "images with a colour profile that cannot be used, taken as sRGB: 1\n",
        "images of more than 8 bits: 1, of values from 0 to 255; 0 becomes black, 255 white",
        "warning: images of one colour: 161 (",
        "warning: images that are copies of one in another split: ",
    ):
        assert says in printed.out


def test_links_into_the_cache_of_dvc_are_followed_and_others_are_not(
    images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    Repo.init(no_scm=True).close()
    shared = tmp_path / "shared"
    config = Path(".dvc/config.local")
    digest = "ab/" + 30 * "c"
    for folder, name, outside in (
        (tmp_path / ".dvc/cache", f"files/md5/{digest}", False),
        (shared, f"files/md5/{digest}", False),
        (shared, digest, False),  # as DVC 2 kept them
        (shared, "notes/a.png", True),
        (shared, f"files/md5/{digest}/../../../a.png", True),
        (tmp_path / "elsewhere", f"files/md5/{digest}", True),
    ):
        caches._cache_folder.cache_clear()
        config.write_text(f"[cache]\n    dir = {shared}\n" if folder == shared else "")
        target = folder / name
        put(str(target.resolve()), OTHER)(tmp_path)
        (images / "0/0.png").unlink()
        (images / "0/0.png").symlink_to(target)
        status, printed = run(capsys)
        assert (status, "0/0.png: points outside" in printed.err) == (0, outside), target
    caches._cache_folder.cache_clear()
