"""`make check-data`: what it says of a source is what stage prepare then makes of it."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from bad_files import encoded, put
from conftest import REPO, write_images
from PIL import Image

from advloop.core.errors import UserError
from advloop.dataset import load_dataset
from advloop.params.data import DataParams
from advloop.params.loader import Params
from advloop.preparation.prepare import prepare
from advloop.preparation.source_check import check_source
from advloop.preparation.sources import list_items, open_source

PARAMS = DataParams("images", "skip", "crop", 16, 0.2, 0.2, 0.4, 0)
SMALL = encoded(Image.new("RGB", (24, 24), "red"))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", 24, groups=10, each=6)
    return tmp_path / "images"


def lines_of(images: Path, params: DataParams = PARAMS, seconds: float = 60) -> list[str]:
    return list(check_source(open_source(images), params, seconds))


def collect(images: Path, params: DataParams, lines: list[str]) -> None:
    """What is said before an error goes to ``lines``."""
    for one in check_source(open_source(images), params, 60):
        lines.append(one)


def line(lines: list[str], start: str) -> str:
    (found,) = [one for one in lines if one.strip().startswith(start)]
    return found.strip()


def test_check_counts_what_stage_prepare_uses_splits_and_skips(images: Path) -> None:
    put("group_03/2.png", b"no image")(images)
    put("group_04/1.png", encoded(Image.new("L", (24, 24), 7)))(images)
    put("group_05/1.jpg", encoded(Image.new("RGB", (24, 30)), "JPEG"))(images)
    put("group_05/2.png", encoded(Image.new("RGBA", (10, 24))))(images)
    put("notes.txt", "hello")(images)
    lines = lines_of(images)
    source = open_source(images)
    said: list[str] = []
    items = list_items(source)
    prepare(source, items, PARAMS, images.parent / "data", lambda part: part, said.append)
    dataset = load_dataset(images.parent / "data")
    assert lines[0].endswith("images: 61 images in 10 groups, by sub-folder")
    assert line(lines, "not used").endswith(": notes.txt")
    assert line(lines, "opened") == "opened: 61 of 61 (1 JPEG, 59 PNG, 1 grey, 1 transparent)"
    assert line(lines, "skipped") == f"skipped: {said[0]}"
    assert line(lines, "10×24 to 24×30 pixels").endswith("to 16×16 by data.resize=crop")
    assert line(lines, "1 lose more than half").endswith(": group_05/2.png most")
    assert line(lines, "1 are too small for 16 pixels").endswith(": group_05/2.png")
    counted = line(lines, "used: 60 images")
    for split in ("train", "val", "tune", "test"):
        rows = dataset.rows(split)
        groups = {dataset.groups[row] for row in rows}
        assert f"{split} {len(rows)} of {len(groups)} groups" in counted


def test_folder_whose_own_sub_folders_are_groups_is_named(images: Path) -> None:
    assert not [one for one in lines_of(images) if "different splits" in one]
    for group in sorted(images.iterdir()):
        place = images / ("night" if group.name > "group_04" else "day")
        place.mkdir(exist_ok=True)
        group.rename(place / group.name)
    said = line(lines_of(images), "each folder that holds images is a group")
    assert said.endswith("a manifest.csv joins them: day, night")
    by_class = lines_of(images, replace(PARAMS, classes="folders"))
    assert not [one for one in by_class if "different splits" in one]


def test_bad_image_is_an_error_where_the_run_would_stop(images: Path) -> None:
    put("group_03/2.png", b"no image")(images)
    lines: list[str] = []
    params = replace(PARAMS, on_error="stop")
    with pytest.raises(UserError, match=r"1 images cannot be used; .* data\.on_error=skip"):
        collect(images, params, lines)
    assert "group_03/2.png" in line(lines, "stops the run")
    assert line(lines, "used: 59 images")


def test_bad_images_beyond_the_first_are_counted(images: Path) -> None:
    for k in range(6):
        put(f"group_03/{k}.png", b"no image")(images)
    lines = lines_of(images)
    assert len([one for one in lines if one.startswith("skipped: ")]) == 5
    assert line(lines, "and 1 more that cannot be used")


def test_too_few_groups_are_an_error_after_what_was_found(images: Path) -> None:
    for group in range(4, 10):
        for file in (images / f"group_{group:02d}").iterdir():
            file.unlink()
    lines: list[str] = []
    with pytest.raises(UserError, match="at least 5 are needed"):
        collect(images, PARAMS, lines)
    assert line(lines, "opened: 24 of 24")


def test_manifest_that_leaves_images_out_is_named(images: Path) -> None:
    rows = [f"group_{g:02d}/{k}.png,{g}" for g in range(10) for k in range(5)]
    put("manifest.csv", "\n".join(["file,group", *rows]))(images)
    lines = lines_of(images, replace(PARAMS, test_fraction=0.4))
    assert lines[0].endswith("50 images in 10 groups, as manifest.csv says")
    assert "10 files (10 of them images that manifest.csv does not name)" in line(lines, "not used")


def test_classes_are_counted_by_split_and_one_that_cannot_be_measured_is_named(
    images: Path,
) -> None:
    assert not [one for one in lines_of(images) if one.startswith("class ")]
    lines = lines_of(images, replace(PARAMS, classes="folders", tune_fraction=0.5))
    counts = re.search(r"(\d+) train, (\d+) val", line(lines, "class group_00"))
    assert counts
    assert min(map(int, counts.groups())) > 0
    put("rare/0.png", SMALL)(images)
    put("rare/1.png", SMALL)(images)
    lines = lines_of(images, replace(PARAMS, classes="folders", tune_fraction=0.5))
    assert "none to look at in" in line(lines, "class rare")


def test_copy_of_an_image_in_another_split_is_named(images: Path) -> None:
    assert not [one for one in lines_of(images) if "copies" in one]
    for group in range(10):
        put(f"group_{group:02d}/copy.png", SMALL)(images)
    warning = line(lines_of(images), "warning")
    assert re.search(r"group_\d\d/copy\.png \(\w+\) = group_00/copy\.png \(\w+\)", warning)


@pytest.mark.parametrize(
    ("resize", "says"), [("crop", "lose"), ("pad", "half white"), ("stretch", "are bent")]
)
def test_very_wide_image_is_named_with_what_becomes_of_it(
    images: Path, resize: str, says: str
) -> None:
    put("group_01/wide.png", encoded(Image.new("RGB", (4000, 9))))(images)
    lines = lines_of(images, replace(PARAMS, resize=resize))
    (found,) = [one for one in lines if says in one]
    assert found.endswith("group_01/wide.png most")


def test_time_that_is_over_leaves_images_unopened_and_says_so(images: Path) -> None:
    lines = lines_of(images, seconds=0)
    assert line(lines, "opened") == "opened: 1 of 60 (1 PNG)"
    assert "59" in line(lines, "not opened within 0 s")
    assert line(lines, "used: 60 images")


def test_name_with_a_control_character_is_escaped(images: Path) -> None:
    put("a\x1b[1m.txt", "?")(images)
    put("b\nc.png", SMALL)(images)
    lines = lines_of(images)
    assert "a\\x1b[1m.txt" in line(lines, "not used")
    assert "b\\nc.png" in line(lines, "skipped")
    assert not any("\n" in one or "\x1b" in one for one in lines)


def test_command_goes_by_params_yaml_and_ends_in_one_line(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = str(REPO / "tools/check_data.py")
    monkeypatch.chdir(REPO)
    monkeypatch.setattr("sys.argv", [tool, str(images)])
    runpy.run_path(tool, run_name="__main__")
    size = Params.load().section("data", DataParams).image_size
    assert f"{size}×{size} by data.resize=crop" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [tool, str(images / "none")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(tool, run_name="__main__")
    assert str(ended.value).startswith(f"error: data.source={images / 'none'}: neither a folder")
