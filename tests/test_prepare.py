"""Stage prepare: one array in the manifest's order, and what a bad image does to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from bad_files import encoded, put
from common import run_stage
from conftest import REPO
from omegaconf import OmegaConf
from PIL import Image

from advloop.core.errors import UserError
from advloop.dataset import load_dataset
from advloop.params.data import DataParams
from advloop.preparation.prepare import prepare
from advloop.preparation.sources import Item, list_items, open_source
from advloop.preparation.splits import assign_splits
from prepare import main

SIZE = 8
GOOD = encoded(Image.new("RGB", (SIZE, SIZE), "red"))


class Fake:
    """A source without a disk: red images, but for the ``bad`` ones."""

    name = "fake"

    def __init__(self, groups: int, each: int, bad: Callable[[str], bool]) -> None:
        self.items = [
            Item(f"{g:03d}/{k:03d}.png", f"{g:03d}") for g in range(groups) for k in range(each)
        ]
        self.bad = bad

    def files(self) -> list[str]:
        return [item.file for item in self.items]

    def read(self, file: str) -> bytes:
        return GOOD[:45] if self.bad(file) else GOOD


def params(on_error: str) -> DataParams:
    return DataParams("fake", on_error, "crop", SIZE, 0.2, 0.2, 0.4, 0)


def run(source: Fake, on_error: str, folder: Path) -> list[str]:
    """What prepare says of the images that it leaves out."""
    said: list[str] = []

    def no_bar(items: Iterable[Item]) -> Iterable[Item]:
        return items

    prepare(source, source.items, params(on_error), folder, no_bar, said.append)
    return said


def splits(folder: Path) -> dict[str, str]:
    dataset = load_dataset(folder)
    return dict(zip(dataset.files, dataset.splits, strict=True))


def no_file(_: str) -> bool:
    return False


BAD = "042/007.png"


def one_file(file: str) -> bool:
    return file == BAD


def test_array_is_the_one_that_numpy_saves_whatever_is_left_out(tmp_path: Path) -> None:
    whole, rest = (
        Fake(10, 8, no_file),
        Fake(10, 8, lambda file: file in ("000/000.png", "003/001.png")),
    )
    for on_error, source in (("stop", whole), ("skip", rest)):
        run(source, on_error, tmp_path / on_error)
        images = load_dataset(tmp_path / on_error).images
        np.save(tmp_path / "expected.npy", np.array(images))
        expected = (tmp_path / "expected.npy").read_bytes()
        assert (tmp_path / on_error / "images.npy").read_bytes() == expected
        assert (images == (255, 0, 0)).all()


def test_one_bad_image_in_ten_thousand_stops_the_run_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run(Fake(100, 100, one_file), "stop", tmp_path)
    message = str(caught.value)
    assert message.startswith(f"fake: {BAD}: not a readable image")
    assert message.endswith("replace or remove it, or set data.on_error=skip")
    assert list(tmp_path.iterdir()) == []


def test_one_bad_image_in_ten_thousand_is_left_out_named_and_counted(tmp_path: Path) -> None:
    source = Fake(100, 100, one_file)
    (said,) = run(source, "skip", tmp_path)
    assert said.startswith(f"fake: {BAD}: not a readable image")
    assert json.loads((tmp_path / "skipped.json").read_text()) == {
        "count": 1,
        "of": 10_000,
        "images": {BAD: said},
    }
    found = splits(tmp_path)
    kept = [item for item in source.items if item.file != BAD]
    assert list(found) == [item.file for item in kept]
    assert list(found.values()) == assign_splits(kept, 0.2, 0.2, 0.4, 0)


def test_group_without_a_readable_image_is_in_no_split_and_the_others_stay_whole(
    tmp_path: Path,
) -> None:
    source = Fake(20, 8, lambda file: file.startswith("004/") or file == "005/003.png")
    assert len(run(source, "skip", tmp_path)) == 9
    dataset = load_dataset(tmp_path)
    assert len(dataset.files) == 20 * 8 - 9
    assert "004" not in dataset.groups
    pairs = set(zip(dataset.groups, dataset.splits, strict=True))
    assert len(pairs) == len(set(dataset.groups)) == 19


def test_record_is_kept_under_skip_alone(tmp_path: Path) -> None:
    run(Fake(10, 8, no_file), "stop", tmp_path / "stop")
    run(Fake(10, 8, no_file), "skip", tmp_path / "skip")
    assert not (tmp_path / "stop/skipped.json").exists()
    record = json.loads((tmp_path / "skip/skipped.json").read_text())
    assert record == {"count": 0, "of": 80, "images": {}}
    for file in ("images.npy", "manifest.csv"):
        assert (tmp_path / "stop" / file).read_bytes() == (tmp_path / "skip" / file).read_bytes()


def test_images_that_are_all_bad_are_an_error_under_skip_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fake: none of 80 images is readable"):
        run(Fake(10, 8, lambda _: True), "skip", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_too_few_images_that_are_left_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"1 group\(s\) of images"):
        run(Fake(10, 8, lambda file: not file.startswith("000/")), "skip", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_stage_names_each_skipped_image_in_one_line_of_stderr_and_says_how_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for g in range(20):
        for k in range(8):
            put(f"images/{g}/{k}.png", GOOD)(tmp_path)
    for name, content in (("a\nb.png", GOOD), ("\udcff.png", GOOD), ("3/3.png", b"")):
        put(f"images/{name}", content)(tmp_path)
    (tmp_path / "images/dangling.png").symlink_to("none.png")
    content = OmegaConf.load(REPO / "params.yaml")
    content.data.update(source="images", image_size=SIZE, on_error="skip")
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
    assert len(splits(Path("data"))) == 159


def test_manifest_that_names_an_absent_file_stops_under_skip_too(tmp_path: Path) -> None:
    put("a/1.png", GOOD)(tmp_path)
    put("manifest.csv", "file,group\na/1.png,a\na/2.png,a\n")(tmp_path)
    with pytest.raises(UserError, match=r"names a/2\.png, which is not there"):
        list_items(open_source(tmp_path))
