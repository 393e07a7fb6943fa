"""Names from other systems: one folder is one group, and what is meant is said."""

from __future__ import annotations

import stat
import zipfile

import pytest
from bad_files import put, zipped
from refusal import refusal

from advloop.data.listing import describe_groups, describe_unused, list_items
from advloop.data.names import clean, resembling
from advloop.data.sources import open_source

E_ACUTE, E_AND_ACCENT = "caf\xe9", "cafe\u0301"


def pack(tmp_path, *names):
    put("x.zip", zipped(dict.fromkeys(names, b"?")))(tmp_path)
    return open_source(tmp_path / "x.zip")


def fill(tmp_path, *names, **manifest):
    for name in names:
        put(name, b"?")(tmp_path)
    if manifest:
        put("manifest.csv", "file,group\n" + manifest["rows"])(tmp_path)
    return open_source(tmp_path)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("a\\b.png", "a/b.png"),
        ("a\\b/c.png", "a/b/c.png"),
        (".\\a\\\\b.png", "a/b.png"),
        ("./a/./b.png", "a/b.png"),
        ("a//b.png", "a/b.png"),
        (f"{E_AND_ACCENT}/b.png", f"{E_ACUTE}/b.png"),
        ("a:b.png", "a:b.png"),
        ("a..b/...png", "a..b/...png"),
        ("./", ""),
        *(
            (bad, None)
            for bad in ("/a", "\\a", "\\\\server\\a", "c:\\a", "C:/a", "..\\a", "a/../b")
        ),
    ],
)
def test_name_in_an_archive_is_that_of_a_posix_file_or_leads_outside(written, name):
    assert clean(written) == name


def test_folders_of_an_archive_made_on_windows_are_groups(tmp_path):
    names = [f"pics\\g{g}\\{k}.png" for g in range(3) for k in range(4)]
    source = pack(tmp_path, "pics\\", "pics\\g0\\", *names, "pics\\.git\\a.png", "__MACOSX\\b.png")
    assert source.files() == [f"g{g}/{k}.png" for g in range(3) for k in range(4)]
    assert {item.group for item in list_items(source)} == {"g0", "g1", "g2"}
    assert source.read("g1/2.png") == b"?"


def test_names_that_macos_packs_without_saying_utf8_are_read_as_such(tmp_path):
    name = f"{E_AND_ACCENT}/a.png"
    content = zipped({name: b"?", "b/c.png": b"?"})
    flagged = [content.replace(b"\x14\0\0\x08", b"\x14\0\0\0"), content]
    assert flagged[0] != content
    for content in flagged:
        put("x.zip", content)(tmp_path)
        assert open_source(tmp_path / "x.zip").files() == ["b/c.png", f"{E_ACUTE}/a.png"]


@pytest.mark.parametrize(
    "pair",
    [("a/b.png", "a\\b.png"), ("./b.png", "b.png"), (f"{E_ACUTE}.png", f"{E_AND_ACCENT}.png")],
    ids=ascii,
)
def test_two_members_of_one_name_are_refused(tmp_path, pair):
    assert "twice, as" in refusal(pack, tmp_path, *pair)


def test_link_in_an_archive_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    assert "a.png is a link" in refusal(open_source(tmp_path / "x.zip").read, "a.png")


@pytest.mark.parametrize(
    "groups",
    [("Cat", "cat"), ("cat", "cat "), (E_ACUTE, E_AND_ACCENT), ("a/Day", "a/day"), ("ß", "SS")],
    ids=ascii,
)
def test_groups_that_differ_in_case_blanks_or_unicode_alone_are_refused(tmp_path, groups):
    names = [f"{group}/{k}.png" for k, group in enumerate(groups)]
    message = refusal(list_items, fill(tmp_path / "folder", *names))
    assert "alone; give them one name" in message
    rows = "".join(f"{k}.png,{group}\n" for k, group in enumerate(groups))
    message = refusal(list_items, fill(tmp_path / "listed", "0.png", "1.png", rows=rows))
    assert message.startswith(f"{tmp_path / 'listed/manifest.csv'}: the groups ")


def test_images_and_classes_may_differ_in_letter_case(tmp_path):
    letters = ["a/1.png", "A/1.png", "a/x/1.png", "A/x/1.png", "x.png", "X.png"]
    assert len(list_items(fill(tmp_path, *letters[:4]), "folders")) == 4
    assert len(list_items(fill(tmp_path / "flat", *letters[4:]))) == 2


def test_backslash_in_the_name_of_a_file_is_refused_without_a_manifest(tmp_path):
    message = refusal(list_items, fill(tmp_path, "a\\1.png", "b/1.png"))
    assert "a\\1.png has a backslash in its name" in message
    assert len(list_items(fill(tmp_path, rows="a\\1.png,g\nb/1.png,h\n"))) == 2


@pytest.mark.parametrize(
    ("row", "file"),
    [
        ("a\\1.png", "a/1.png"),
        ("./a/1.png", "a/1.png"),
        ("pics/a/1.png", "a/1.png"),
        ("C:\\pics\\a\\1.png", "a/1.png"),
        ("/home/me/pics/a/1.png", "a/1.png"),
        ("a/1.png ", "a/1.png"),
        (" a / 1.png", "a/1.png"),
        ("A/1.PNG", "a/1.png"),
        ("1.png", "a/1.png"),
        ("b/long_name_of_2.jpg", "b/long_name_of_2.png"),
        ("nothing/like/it.png", None),
        ("", None),
    ],
)
def test_row_of_a_manifest_that_is_not_there_says_what_it_resembles(tmp_path, row, file):
    files = ["a/1.png", "b/long_name_of_2.png"]
    assert resembling(row, files) == file
    if row:
        message = refusal(list_items, fill(tmp_path, *files, rows=f'"{row}",g\nq,g\n'))
        assert "which is not there (nor are 1 more); " in message
        assert (f"did you mean {file}?" in message) == (file is not None)
        assert (repr(row) in message) == (row != row.strip())


@pytest.mark.parametrize("name", [E_ACUTE, E_AND_ACCENT], ids=ascii)
def test_row_in_another_form_of_unicode_names_the_file(tmp_path, name):
    rows = f"{E_ACUTE}.png,a\nb.png,b\n"
    found = list_items(fill(tmp_path, f"{name}.png", "b.png", rows=rows))
    assert [item.file for item in found] == ["b.png", f"{name}.png"]


@pytest.mark.parametrize("name", ["Manifest.csv", "MANIFEST.CSV"])
def test_manifest_that_is_spelt_otherwise_is_not_left_out(tmp_path, name):
    put(name, "file,group\n1.png,a\n")(tmp_path)
    message = refusal(list_items, fill(tmp_path, "1.png"))
    assert message.startswith(f"{tmp_path / name}: is read as manifest.csv alone")


def test_files_that_are_no_images_are_counted_by_kind(tmp_path):
    names = ["1.png", "2.JFIF", "3.jpe", "README", "x/4.heic", "x/5.HEIC", "6.jp2"]
    source = fill(tmp_path, *names)
    items = list_items(source)
    assert [item.file for item in items] == ["1.png", "2.JFIF", "3.jpe"]
    (line,) = describe_unused(source, items)
    assert line.startswith("not used: 2 .heic, 1 .jp2, 1 without an ending (PNG, JPEG, ")
    assert line.endswith(": 6.jp2, README, x/4.heic, x/5.HEIC")
    (tmp_path / "x").rename(tmp_path / ".x")
    assert describe_unused(pack(tmp_path, "1.png"), items) == []
    message = refusal(list_items, fill(tmp_path / "none", "a.heic", "b.heic", "c.avif"))
    assert "holds no image" in message
    assert "only 2 .heic, 1 .avif" in message


def test_images_in_no_sub_folder_are_told_to_be_groups_of_their_own(tmp_path):
    source = fill(tmp_path, "1.png", "2.png", "a/3.png", "b/4.png")
    (line,) = describe_groups(source, list_items(source))
    assert line.startswith("images in no sub-folder: 2 of 4; each is a group of its own")
    for classes, count in (("none", 0), ("folders", 2)):
        source = fill(tmp_path / "classes", "a/3.png", "b/4.png")
        lines = describe_groups(source, list_items(source, classes))
        assert [f"class: {count} of {count};" in line for line in lines] == [True] * (count > 0)
    source = fill(tmp_path, rows="1.png,1.png\n2.png,2.png\n")
    assert describe_groups(source, list_items(source)) == []
