"""Whatever manifests, archives and images hold, they are read or refused in one line."""

from __future__ import annotations

import json
import zipfile

import pytest
from bad_files import encoded, zipped
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from properties import bounded, result

from advloop.core.errors import UNPRINTABLE
from advloop.data.dataset import SPLITS, read_manifest, write_manifest
from advloop.data.images import decode_image
from advloop.data.listing import list_items
from advloop.data.sources import open_source


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


# --- Manifests ---

NAMES = st.text(min_size=1, max_size=12).filter(lambda name: not UNPRINTABLE.search(name))
ROWS = st.lists(st.tuples(NAMES, NAMES, st.sampled_from(SPLITS)), max_size=5)
WORDS = "file group split a.png b/c.png ../secret.png /etc/hostname b/../a.png g train dev"
CELLS = st.sampled_from([*WORDS.split(), *'",\0\n\r\u2028\ud800é', ""])
TABLES = st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=5).map("\n".join)
CSV = st.binary(max_size=60) | TABLES.map(lambda text: text.encode(errors="surrogatepass"))
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | CELLS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(CELLS, inner, max_size=3),
    max_leaves=5,
)
ENTRIES = st.fixed_dictionaries(
    {"file": CELLS | JSON, "wad": JSON, "map": CELLS}, optional={"split": JSON}
)
INDICES = (JSON | st.lists(ENTRIES, max_size=3)).map(json.dumps).map(str.encode)


@bounded(60)
@given(ROWS)
def test_any_manifest_that_is_written_is_read_back(folder, rows):
    write_manifest(folder / "manifest.csv", rows)
    assert read_manifest(folder / "manifest.csv") == [list(row) for row in rows]


@bounded(150)
@given(CSV | CSV.map(lambda rest: b"file,group,split\n" + rest))
def test_any_bytes_for_a_manifest_are_rows_of_known_splits_or_refused(folder, content):
    path = folder / "any.csv"
    path.write_bytes(content)
    for row in result(lambda: read_manifest(path)) or []:
        assert len(row) == 3
        assert row[2] in SPLITS


@pytest.fixture(scope="module")
def source(folder):
    """A folder of two images, with a third one beside it."""
    root = folder / "source"
    for path in (root / "a.png", root / "b/c.png", folder / "secret.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


ANY_CSV = CSV | CSV.map(lambda rest: b"file,group,split\na.png,g,train\n" + rest)
ANY_INDEX = st.binary(max_size=40) | INDICES


@bounded(300)
@given(st.tuples(st.just("manifest.csv"), ANY_CSV) | st.tuples(st.just("index.json"), ANY_INDEX))
def test_any_bytes_for_a_source_manifest_are_items_inside_the_source_or_refused(source, manifest):
    """Items are files of the source, once each, with a group that a manifest can hold."""
    name, content = manifest
    (source / name).write_bytes(content)
    items = result(lambda: list_items(open_source(source)))
    (source / name).unlink()
    if items is None:
        return
    assert items
    assert {item.file for item in items} <= {"a.png", "b/c.png"}
    assert len({item.file for item in items}) == len(items)
    assert all(item.group and not UNPRINTABLE.search(item.group) for item in items)
    assert all(item.split in (None, *SPLITS) for item in items)


# --- Damaged archives and images ---

EDITS = st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6)
ARCHIVES = [
    zipped({"ü/a.png": b"x" * 300, "b/c.png": bytes(range(256))}, method)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
]
PICTURE = Image.linear_gradient("L").resize((20, 30)).convert("RGB")
IMAGES = [encoded(PICTURE, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")]


def damaged(content, edits):
    changed = bytearray(content)
    for index, value in edits:
        changed[index % len(changed)] = value
    return bytes(changed)


@bounded(150)
@given(st.sampled_from(ARCHIVES), EDITS)
def test_any_damaged_archive_is_read_or_refused(folder, content, edits):
    (folder / "damaged.zip").write_bytes(damaged(content, edits))

    def read():
        opened = open_source(folder / "damaged.zip")
        return [opened.read(item.file) for item in list_items(opened)]

    result(read)


@bounded(150)
@given(st.sampled_from(IMAGES), EDITS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about damaged TIFF
def test_any_damaged_image_is_decoded_or_refused(content, edits):
    pixels = result(lambda: decode_image(damaged(content, edits), "a.png", 8))
    assert pixels is None or pixels.shape == (8, 8, 3)
