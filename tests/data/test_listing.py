"""Groups, splits and classes come out of manifests and folder names as they should."""

from __future__ import annotations

import json

import pytest
from bad_files import put
from refusal import refusal

from advloop.data.listing import describe_unused, list_items
from advloop.data.manifests import Item
from advloop.data.sources import open_source

MANIFESTS = {"csv": "manifest.csv", "json": "index.json"}
CSV = "file,group,split\nb.png,one,test\na.png,one,test\nc/d.png,two,\n"


def fill(root, *files, **manifests):
    """A folder of empty files and of ``manifests``: csv or json."""
    for file in files:
        put(file, b"")(root)
    for kind, content in manifests.items():
        put(MANIFESTS[kind], content)(root)
    return open_source(root)


def groups(source):
    return {item.file: item.group for item in list_items(source)}


# --- Folder names ---


def test_folder_that_holds_an_image_is_its_group_and_an_image_at_the_top_its_own(tmp_path):
    files = ["b/c/3.webp", "a/1.png", "a/2.JPG", "b/4.png", "0.gif"]
    found = groups(fill(tmp_path, *files, "notes.txt", "README", "a/model.pt"))
    assert list(found) == sorted(files)
    assert list(found.values()) == ["0.gif", "a", "a", "b", "b/c"]


def test_first_sub_folder_is_the_class_and_the_one_below_it_the_group(tmp_path):
    files = ["cat/a.png", "cat/b.png", "dog/rex/a.png", "dog/rex/more/b.png"]
    source = fill(tmp_path, *files)
    assert list_items(source, "folders") == [
        Item("cat/a.png", "cat/a.png", None, "cat"),  # a class is no group
        Item("cat/b.png", "cat/b.png", None, "cat"),
        Item("dog/rex/a.png", "dog/rex", None, "dog"),
        Item("dog/rex/more/b.png", "dog/rex/more", None, "dog"),
    ]
    assert list(groups(source).values()) == ["cat", "cat", "dog/rex", "dog/rex/more"]


@pytest.mark.parametrize(
    ("file", "classes", "says"),
    [
        ("notes.txt", "none", "holds no image"),
        ("a.png", "folders", "a.png is in no sub-folder"),
        ("cat/a.png", "folders", "all images are of class cat"),
        ("a.png", "manifest", "there is no manifest.csv"),
    ],
)
def test_source_without_images_or_classes_is_refused(tmp_path, file, classes, says):
    message = refusal(list_items, fill(tmp_path, file), classes)
    assert message.startswith(f"{tmp_path}: ")
    assert says in message


# --- Manifests ---


@pytest.mark.parametrize(
    "content",
    [CSV, CSV.replace("\n", "\r\n"), "\ufeff" + CSV, CSV.rstrip("\n"), CSV + "\n\n"],
    ids=["lf", "crlf", "bom", "no-last-newline", "blank-lines"],
)
def test_manifest_decides_groups_and_splits(tmp_path, content):
    source = fill(tmp_path, "a.png", "b.png", "c/d.png", "unlisted.png", csv=content)
    found = [Item("a.png", "one", "test"), Item("b.png", "one", "test"), Item("c/d.png", "two")]
    assert list_items(source) == found


def test_manifest_needs_no_split_column_and_may_hold_others(tmp_path):
    source = fill(tmp_path, "a.png", csv="width,group,file\n10,g,a.png\n")
    assert list_items(source) == [Item("a.png", "g")]


def test_manifest_names_classes_that_go_across_its_groups(tmp_path):
    text = "file,group,class\na.png,one,day\nb.png,one,night\n"
    source = fill(tmp_path, "a.png", "b.png", csv=text)
    items = list_items(source, "manifest")
    assert [(item.group, item.class_name) for item in items] == [("one", "day"), ("one", "night")]
    assert [item.class_name for item in list_items(source)] == [None, None]


def test_index_groups_by_map_of_a_wad(tmp_path):
    rows = [
        {"file": "b.png", "wad": "w", "map": "m1", "split": "test"},
        {"file": "a.png", "wad": "w", "map": "m2"},
    ]
    source = fill(tmp_path, "a.png", "b.png", json=json.dumps(rows))
    assert list_items(source) == [Item("a.png", "w_m2"), Item("b.png", "w_m1", "test")]


@pytest.mark.parametrize(
    "content",
    [
        "null",
        '"text"',
        "[]",
        "[1]",
        "{",
        "[" * 100_000,
        '{"images": [{"file_name": "a.png"}], "categories": []}',
        '[{"file": "a.png", "label": 3}]',
        b"\xff\xfe",
    ],
    ids=lambda content: str(content)[:20],
)
def test_index_of_somebody_else_is_a_file_that_is_not_used(tmp_path, content):
    source = fill(tmp_path, "a/1.png", "b/2.png", json=content)
    items = list_items(source)
    assert [item.group for item in items] == ["a", "b"]
    assert describe_unused(source, items)[0].endswith(": index.json")


@pytest.mark.parametrize(
    ("kind", "content", "classes", "says"),
    [  # more in bad_source.py
        ("csv", "file,group\n,g\n", "none", "file is empty"),
        ("csv", "file,group\na.png,\n", "none", "group of a.png is empty"),
        ("csv", "file,group\na.png\n", "none", "group of a.png is empty"),
        ("csv", "file,group\n" + "x" * 200_000 + ",g\n", "none", "line 2 is no CSV (field larger"),
        ("csv", "file,group\na.png,\xff\n".encode("latin-1"), "none", "not a UTF-8 CSV file"),
        ("csv", 'file,group\n"a\n.png",g\n', "none", "line 2: 'a' goes on in the next line"),
        ("csv", 'file,group\na.png,g\nb,"g\nc,h\n', "none", "line 3 is no CSV (unexpected end"),
        ("csv", 'file,group\na.png,"g\nb,"h"\n', "none", "line 2 is no CSV (',' expected after"),
        ("csv", 'file,group\na.png,"g\r\nb.png,h"\r\n', "none", "line 2: 'g' goes on in the"),
        ("csv", 'file,group\n"a.png,g\n', "none", "close the quotes around names"),
        ("csv", "file,group,group\na.png,g,h\n", "none", "column group is there twice; keep one"),
        ("csv", 'file,group\n"a".png,g\n', "none", "line 2 is no CSV"),
        ("csv", 'file,group,split\na.png,g,"\ntrain"\n', "none", "goes on in the next line"),
        ("csv", '"file,group\na.png,g\n', "none", "line 1 is no CSV"),
        ("csv", '"file,group"\na.png,g\n', "none", "take the quotes off the first line"),
        ("csv", "file,group\na.png,g\n", "manifest", "column class is missing"),
        ("csv", "file,group,class\na.png,g,\n", "manifest", "class of a.png is ''"),
        ("csv", 'file,group,class\na.png,g,"a\nb"\n', "manifest", "'a' goes on in the next line"),
        ("csv", "file,group,class\na.png,g,x\n", "manifest", "all images are of class x"),
        ("json", '[{"wad": "w", "map": "m"}]', "none", "not a list of"),
        ("json", '{"wad": "w", "map": "m"}', "none", "not a list of"),
        ("json", '[{"file": "a.png", "wad": "w", "map": "m"}, 1]', "none", "not a list of"),
        ("json", '[{"file": "a.png", "wad": "w", "map": "m"', "none", "not a list of"),
        ("json", '[{"file": 1, "wad": "w", "map": "m"}]', "none", "file is empty"),
    ],
    ids=lambda value: value[:30],
)
def test_bad_manifest_is_refused_in_one_line(tmp_path, kind, content, classes, says):
    message = refusal(list_items, fill(tmp_path, "a.png", **{kind: content}), classes)
    assert message.startswith(f"{tmp_path / MANIFESTS[kind]}: ")
    assert says in message
