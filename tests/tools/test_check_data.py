"""`make check-data`: what it says about a source is what stage prepare then makes of it."""

from __future__ import annotations

import re
import runpy
import shutil

import numpy as np
import pytest
from bad_files import encoded, put
from conftest import REPO, write_images
from PIL import Image
from refusal import refusal
from small_params import DATA

import check_data
from advloop.data.dataset import SPLITS, load_dataset
from advloop.data.findings import findings
from advloop.data.listing import describe_unused, list_items
from advloop.data.prepare import prepare
from advloop.data.sources import open_source
from advloop.data.values import describe_range
from advloop.params.data import DataParams
from advloop.params.loader import Params
from check_data import check_source

SMALL = encoded(Image.new("RGB", (24, 24), "red"))


@pytest.fixture
def images(tmp_path):
    """Ten groups of six images of 24×24 pixels."""
    write_images(tmp_path / "images", 24, groups=10, each=6)
    return tmp_path / "images"


def check(images, seconds=60, **changes):
    return list(check_source(open_source(images), DATA.model_copy(update=changes), seconds))


def refused_check(images, **changes):
    """The lines before an error, and the error."""
    lines = []
    found = check_source(open_source(images), DATA.model_copy(update=changes), 60)
    message = refusal(lines.extend, found)
    return lines, message


def line(lines, start):
    (found,) = [one for one in lines if one.strip().startswith(start)]
    return found.strip()


def test_check_counts_what_stage_prepare_uses_splits_and_skips(images):
    put("group_03/2.png", b"no image")(images)
    put("group_04/1.png", encoded(Image.new("L", (24, 24), 7)))(images)
    put("group_05/1.jpg", encoded(Image.new("RGB", (24, 30)), "JPEG"))(images)
    put("group_05/2.png", encoded(Image.new("RGBA", (10, 24))))(images)
    put("notes.txt", "hello")(images)
    lines = check(images)
    assert lines[0].endswith("images: 61 images in 10 groups, by sub-folder")
    assert line(lines, "not used").endswith(": notes.txt")
    assert line(lines, "opened") == "opened: 61 of 61 (1 JPEG, 59 PNG, 1 grey, 1 transparent)"
    assert line(lines, "10×24 to 24×30 pixels").endswith("to 16×16 by data.resize=crop")
    assert line(lines, "more than half").endswith(": 1 image, group_05/2.png most")
    assert line(lines, "too small for 16 pixels").endswith(": 1 image: group_05/2.png")

    said, source, made = [], open_source(images), images.parent / "data"
    prepare(source, list_items(source), DATA, made, lambda items: items, said.append)
    assert line(lines, "skipped") == f"skipped: {said[0]}"
    dataset, counted = load_dataset(made), line(lines, "used: 60 images")
    for split in SPLITS:
        rows = dataset.rows(split)
        groups = {dataset.groups[row] for row in rows}
        plural = "s" * (len(groups) > 1)
        assert f"{split} {len(rows)} of {len(groups)} group{plural}" in counted


def test_folder_whose_own_sub_folders_are_groups_is_named(images):
    assert "different splits" not in "".join(check(images))
    for group in sorted(images.iterdir()):
        parent = images / ("night" if group.name > "group_04" else "day")
        parent.mkdir(exist_ok=True)
        group.rename(parent / group.name)
    said = line(check(images), "each folder that holds images is a group")
    assert said.endswith("a manifest.csv joins them: day, night")
    assert "different splits" not in "".join(check(images, classes="folders"))


def test_bad_image_is_an_error_if_the_run_would_stop(images):
    put("group_03/2.png", b"no image")(images)
    lines, message = refused_check(images, on_error="stop")
    assert re.search(r"1 image cannot be used; .* data\.on_error=skip", message)
    assert "group_03/2.png" in line(lines, "stops the run")
    assert line(lines, "used: 59 images")


def test_bad_images_beyond_the_first_are_counted(images):
    for k in range(6):
        put(f"group_03/{k}.png", b"no image")(images)
    lines = check(images)
    assert len([one for one in lines if one.startswith("skipped: ")]) == 5
    assert line(lines, "and 1 more that cannot be used")


def test_too_few_groups_are_an_error_after_what_was_found(images):
    for group in range(4, 10):
        for file in (images / f"group_{group:02d}").iterdir():
            file.unlink()
    lines, message = refused_check(images)
    assert "at least 5 are needed" in message
    assert line(lines, "opened: 24 of 24")


def test_manifest_that_leaves_images_out_is_named(images):
    rows = [f"group_{g:02d}/{k}.png,{g}" for g in range(10) for k in range(5)]
    put("manifest.csv", "\n".join(["file,group", *rows]))(images)
    lines = check(images, test_fraction=0.4)
    assert lines[0].endswith("50 images in 10 groups, as manifest.csv says")
    assert "10 .png (images that manifest.csv does not name: 10)" in line(lines, "not used")


def test_classes_are_counted_by_split_and_one_that_cannot_be_measured_is_named(images):
    assert "class " not in "".join(check(images))
    lines = check(images, classes="folders", tune_fraction=0.5)
    train, val = re.search(r"(\d+) train, (\d+) val", line(lines, "class group_00")).groups()
    assert min(int(train), int(val)) > 0
    for k in range(2):
        put(f"rare/{k}.png", SMALL)(images)
    lines = check(images, classes="folders", tune_fraction=0.5)
    assert "; none in " in line(lines, "class rare")


def test_copy_of_an_image_in_another_split_is_named(images):
    assert "copies" not in "".join(check(images))
    for group in range(10):
        put(f"group_{group:02d}/copy.png", SMALL)(images)
    (warning,) = [one for one in check(images) if "copies of one in another split" in one]
    assert warning.startswith("warning: ")
    assert re.search(r"group_\d\d/copy\.png \(\w+\) = group_00/copy\.png \(\w+\)", warning)


def test_images_of_one_colour_are_no_warning_where_a_run_leaves_them_out(images):
    put("group_00/flat.png", SMALL)(images)
    assert "images of one colour" in "".join(check(images))
    assert "images of one colour" not in "".join(check(images, max_flat=0.9))


def test_values_of_more_than_8_bits_notes_and_warnings_are_those_of_the_stage(images):
    ramp = (np.arange(576).reshape(24, 24) * 7).astype(np.uint16)
    put("group_01/0.png", encoded(Image.fromarray(ramp)))(images)
    put("group_01/1.png", encoded(Image.new("RGB", (24, 24)), icc_profile=b"?"))(images)
    put("group_02/old.heic", "?")(images)
    lines, source = check(images), open_source(images)
    items = list_items(source)
    written, splits = prepare(source, items, DATA, images.parent / "made", iter, print)
    assert line(lines, "images of more than 8 bits: 1") == describe_range(written.values)
    (note,) = written.notes
    assert line(lines, "images with a colour profile") == f"images {note}: 1"
    found = [one.removeprefix("warning: ") for one in lines if one.startswith("warning: ")]
    assert found == findings(written.looks, items, splits)
    assert [line(lines, "not used")] == describe_unused(source, items)


def test_range_without_sense_is_an_error_if_all_images_were_looked_at(images):
    for k in range(6):
        put(f"group_01/{k}.tif", encoded(Image.new("F", (24, 24), -1), "TIFF"))(images)
        put(f"group_02/{k}.tif", encoded(Image.new("F", (24, 24), 3), "TIFF"))(images)
    _, message = refused_check(images)
    assert "group_01/0.tif holds -1" in message
    lines = check(images, seconds=0, value_range=[0, 9])
    assert "no image has more than 8 bits" in line(lines, "judging by 1 image looked at")


@pytest.mark.parametrize(
    ("resize", "says"), [("crop", "is lost"), ("pad", "becomes white"), ("stretch", "stretched to")]
)
def test_very_wide_image_is_named_with_what_becomes_of_it(images, resize, says):
    put("group_01/wide.png", encoded(Image.new("RGB", (4000, 9))))(images)
    (found,) = [one for one in check(images, resize=resize) if says in one]
    assert found.endswith("group_01/wide.png most")


def test_time_that_is_over_leaves_images_unopened_and_says_so(images):
    lines = check(images, seconds=0)
    assert line(lines, "opened") == "opened: 1 of 60 (1 PNG)"
    assert "59" in line(lines, "not opened within 0 s")
    assert line(lines, "used: 60 images")


def test_name_with_a_control_character_is_escaped(images):
    put("a\x1b[1m.txt", "?")(images)
    put("b\nc.png", SMALL)(images)
    lines = check(images)
    assert "a\\x1b[1m.txt" in line(lines, "not used")
    assert "b\\nc.png" in line(lines, "skipped")
    assert not re.search("[\n\x1b]", "".join(lines))


def test_command_reads_params_yaml_and_ends_in_one_line(images, monkeypatch, capsys):
    tool = str(REPO / "tools/check_data.py")
    monkeypatch.chdir(REPO)
    monkeypatch.setattr("sys.argv", [tool, str(images)])
    runpy.run_path(tool, run_name="__main__")
    data = Params.load().section("data", DataParams)
    size = data.tiles * data.image_size
    assert f"{size}×{size} by data.resize=crop, then 2×2 tiles" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", [tool, str(images / "none")])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["none"], "SOURCE=none: does not exist; name a folder of images, or a .zip archive"),
        (["notes.txt"], "SOURCE=notes.txt: neither a folder nor a .zip archive; name a folder"),
        ([".", "--seconds=-1"], "SECONDS=-1: no number of seconds from 0 on; use one"),
        ([".", "--seconds=nan"], "SECONDS=nan: no number"),
        ([".", "--seconds=inf"], "SECONDS=inf: no number"),
        ([".", "--seconds=a minute"], "SECONDS=a minute: no number"),
    ],
)
def test_bad_option_ends_in_one_line_that_names_it_as_it_was_given(
    images, monkeypatch, capsys, args, said
):
    put("notes.txt", "hello")(images)
    shutil.copy(REPO / "params.yaml", images)
    monkeypatch.chdir(images)
    monkeypatch.setattr("sys.argv", ["check_data.py", *args])
    with pytest.raises(SystemExit) as caught:
        check_data.main()
    assert str(caught.value.code).startswith(f"error: {said}")
    assert capsys.readouterr() == ("", "")
