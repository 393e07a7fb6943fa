"""What is wrong with params.yaml, images, manifests and archives, and what is said of it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bad_files import (
    Plant,
    both,
    claiming,
    cut,
    drop,
    edited,
    encoded,
    encrypted,
    inflating,
    link,
    param,
    png_bomb,
    put,
    zipped,
)
from conftest import GROUPS, IMAGES_PER_GROUP
from PIL import Image

BOMB = 20_000  # pixels a side
VICTIM = "images/group_03/2.png"
MANIFEST = "images/manifest.csv"
FILES = [f"group_{g:02d}/{k}.png" for g in range(GROUPS) for k in range(IMAGES_PER_GROUP)]


@dataclass(frozen=True)
class Bad:
    """One thing that is wrong, the stage that meets it, and parts of the line that it prints.

    ``params``: dotted parameters of the run, bad file or not.
    """

    name: str
    stage: str
    plant: Plant
    says: tuple[str, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


def rows(
    first: str = FILES[0], header: str = "file,group", row: str = "{},{}", more: str = ""
) -> str:
    """A manifest of all images whose first row names ``first``, and ``more`` at its end."""
    lines = [header] + [row.format(file, Path(file).parent) for file in [first, *FILES[1:]]]
    return "\n".join(lines) + f"\n{more}"


def index(**first: Any) -> str:
    """An index.json of all images, with ``first`` in its first row."""
    found = [{"file": f, "wad": "w", "map": Path(f).parent.as_posix()} for f in FILES]
    return json.dumps([found[0] | first, *found[1:]])


def large(path: str, size: int) -> Plant:
    """A file that has ``size`` bytes and takes no room on the disk."""

    def plant(root: Path) -> None:
        with (root / path).open("wb") as file:
            file.truncate(size)

    return plant


def pipe(path: str) -> Plant:
    """A named pipe: whoever opens it waits for ever."""

    def plant(root: Path) -> None:
        (root / path).unlink()
        os.mkfifo(root / path)

    return plant


def config(name: str, plant: Plant, *says: str) -> Bad:
    return Bad(f"config: {name}", "check_config", plant, ("params.yaml", *says))


def value(key: str, setting: Any, *says: str) -> Bad:
    return config(f"{key}={setting}"[:40], param(key, setting), key, *says, "make params")


def image(name: str, plant: Plant, *says: str) -> Bad:
    return Bad(f"image: {name}", "prepare", plant, says)


def manifest(name: str, content: str | bytes, *says: str) -> Bad:
    return Bad(f"manifest: {name}", "prepare", put(MANIFEST, content), (MANIFEST, *says))


def listed(name: str, content: str, *says: str) -> Bad:
    plant = put("images/index.json", content)
    return Bad(f"index: {name}", "prepare", plant, ("images/index.json", *says))


def archive(name: str, content: bytes | Plant, *says: str) -> Bad:
    plant = put("images.zip", content) if isinstance(content, bytes) else content
    params = {"data.source": "images.zip"}
    return Bad(f"archive: {name}", "prepare", plant, ("images.zip", *says), params)


SMALL = encoded(Image.new("RGB", (8, 8), "red"))
GOOD = {file: encoded(Image.new("RGB", (8, 8), (3 * k, 200, 0))) for k, file in enumerate(FILES)}


def packed(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of good images, and of these members."""
    return zipped(GOOD | members, method)


DEEP = [encoded(Image.new("F", (8, 8), value), "TIFF") for value in (-1, 7)]

CONFIG = [
    value("train_disc.learnig_rate", 1e-3, "did you mean train_disc.learning_rate"),
    config("unknown section", param("foo.bar", 1), "foo is not a parameter", "make params"),
    value("base.epochs", "many", "base.epochs=many must be of type int"),
    value("objective.weight", -1, "objective.weight=-1 must be at least 0"),
    value(
        "base.learning_rate",
        float("nan"),
        "base.learning_rate=nan must be finite and greater than 0",
    ),
    value("base.grad_clip", float("inf"), "base.grad_clip=inf must be finite and greater than 0"),
    value("train_disc.weight_decay", 10**400, "must be"),
    value("data.resize", "cut", "data.resize=cut must be one of crop, pad, stretch"),
    value("diffusion.beta_start", 0.01, "diffusion.beta_start=0.01 has no meaning in squaredcos"),
    value("data.value_range", [4095, 0], "0.0] must be [black, white], black lower"),
    value("data.value_range", [0], "[0.0] must be [black, white]"),
    value("data.value_range", 255, "data.value_range=255 must be"),
    value("data.on_error", "ignore", "data.on_error=ignore must be one of stop, skip"),
    value("data.image_size", 18, "data.image_size=18 must be a multiple of the factor 4"),
    value("data.source", "no/such", "data.source=no/such does not exist"),
    value("data.source", "", "data.source="),
    config(
        "data.source that DVC has",
        both(param("data.source", "more"), put("more.dvc", "")),
        "data.source=more is not here",
        "`dvc pull more.dvc`",
    ),
    value("data.source", "x" * 5000, "data.source="),
    value("exp_name", "a/b", "exp_name=a/b may hold"),
    value("exp_name", "../a", "exp_name=../a may hold"),
    value("exp_name", "a; touch b", "exp_name=a; touch b may hold"),
    value("exp_name", "$(touch b)", "exp_name=$(touch b) may hold"),
    value("exp_name", "a\nb", "exp_name=a\\nb may hold"),
    value("derived.last", "iter_1; touch b", "derived.last does not follow"),
    value("derived.1", "x", "derived.1 does not follow"),
    value("num_iterations", 3, "num_iterations=3"),
    value("scale", "${nowhere}", "nowhere"),
    config("no file", drop("params.yaml"), "not found", "make params"),
    config("empty", put("params.yaml", ""), "make params"),
    config("no YAML", put("params.yaml", "data: {source: ["), "not valid YAML", "make params"),
    config("nested too deep", put("params.yaml", "[" * 1000), "not valid YAML"),
    config("not UTF-8", put("params.yaml", b"seed: \xff\n"), "not valid YAML"),
    config(
        "code", put("params.yaml", "seed: !!python/object/apply:os.mkdir [executed]"), "not valid"
    ),
    config(
        "section gone",
        edited("params.yaml", lambda text: text.replace("\ntrain_disc:", "\ntrain_disk:")),
        "train_disk is not a parameter",
        "make params",
    ),
]
IMAGES = [
    image("truncated", cut(VICTIM), "images: group_03/2.png", "truncated", "data.on_error=skip"),
    image("zero bytes", put(VICTIM, b""), "group_03/2.png: not a readable image"),
    image("a text", put(VICTIM, "hello"), "group_03/2.png: not a readable image", "PNG"),
    image(
        "20,000×20,000",
        lambda root: put(VICTIM, png_bomb(BOMB))(root),
        "group_03/2.png",
        "pixels",
        "scale it",
    ),
    image("link out", link(VICTIM, "/etc/hostname"), VICTIM, "points outside images", "copy"),
    image("dangling link", link(VICTIM, "none.png"), VICTIM, "cannot be read"),
    image("link to itself", link(VICTIM, "2.png"), VICTIM, "cannot be read"),
    image("linked folder", link("images/more", "group_01"), "images/more", "link", "copy"),
    image("named pipe", pipe(VICTIM), VICTIM, "not a regular file"),
    image("600 MiB", large(VICTIM, 600 * 2**20), VICTIM, "512 MiB"),
    image("float of -1", put("images/1.tif", DEEP[0]), "images: 1.tif holds -1", "value_range"),
    image("all of 7", put("images/1.tif", DEEP[1]), "images: all values", "(1.tif)", "value_range"),
    image("name not UTF-8", put(b"images/\xff.png", SMALL), "images: \\udcff.png", "rename it"),
    image("two-line name", put("images/a\nb.png", b"?"), "images: a\\nb.png", "rename it"),
]
MANIFESTS = [
    manifest("column missing", rows(header="file,split"), "column group is missing", "add it"),
    manifest("semicolons", rows().replace(",", ";"), "column file is missing", "not by semicolons"),
    manifest("tabs", rows().replace(",", "\t"), "column file is missing", "not by tabs"),
    manifest("capitals", rows(header="File,Group"), "column file is missing", "rename 'File'"),
    manifest("a blank", rows(header="file, group"), "column group is missing", "rename ' group'"),
    manifest("path with ..", rows("../secret.png"), "../secret.png, which is not there"),
    manifest("absolute path", rows("/etc/hostname"), "/etc/hostname, which is not there"),
    manifest("absent file", rows("none.png"), "none.png, which is not there", "correct"),
    manifest("row twice", rows(more=f"{FILES[3]},g\n"), f"{FILES[3]} twice", "keep one"),
    manifest(
        "unknown split", rows(header="file,group,split", more="x.png,g,dev\n"), "split=dev of x.png"
    ),
    manifest("too many cells", rows(more="a, b.png,g,h\n"), "more cells", "quote"),
    manifest("not UTF-8", rows("größe.png").encode("latin-1"), "not a UTF-8 CSV"),
    manifest("UTF-16", rows().encode("utf-16"), "not a UTF-8 CSV"),
    manifest("empty", b"", "column file is missing"),
    manifest("header alone", "file,group\n", "holds no image"),
    manifest("NUL", rows("a\0.png"), "a\\x00.png, which is not there"),
    manifest("control character in a group", rows(more="x.png,g\ah\n"), "group g\\x07h", "rename"),
    manifest("quote left open", rows(more='x.png,"g\n'), "line 62 is no CSV", "close the quotes"),
    listed("cut off", index()[:-9], "not a list of"),
    listed("nested too deep", index() + "[" * 100_000, "not a list of"),
    listed("no list", '{"wad": 1, "map": 1}', "not a list of"),
    listed("key missing", index().replace("file", "path", 1), "not a list of", "file"),
    listed("path with ..", index(file="../a.png"), "../a.png, which is not there"),
    listed("unknown split", index(split="dev"), "split=dev", "train, val, tune or test"),
    listed("half a character", index(map="\ud800"), "\\ud800", "rename"),
]
ARCHIVES = [
    archive("no archive", b"PK?", "not a readable zip archive", "replace"),
    archive("truncated", cut("images.zip"), "not a readable zip archive"),
    archive("encrypted", encrypted(packed({"1.png": SMALL})), "1.png", "encrypted"),
    archive("Windows path with ..", packed({"..\\a.png": SMALL}), "..\\a.png", "points outside"),
    archive("drive letter", packed({"C:\\a.png": SMALL}), "C:\\a.png", "points outside"),
    archive("one group in two cases", packed({"GROUP_01/a.png": SMALL}), "group_01", "one name"),
    archive("member with ..", packed({"../a.png": SMALL}), "../a.png", "points outside"),
    archive("absolute member", packed({"/etc/a.png": SMALL}), "/etc/a.png", "points outside"),
    archive(
        "256 MiB member that says 100 bytes",
        claiming(inflating("1.png", 256, GOOD), 100),
        "1.png cannot be read",
    ),
    archive(
        "member that says 600 MiB",
        claiming(zipped({"1.png": SMALL} | GOOD), 600 * 2**20),
        "1.png is larger than 512 MiB",
    ),
    archive("bzip2", packed({"1.png": SMALL}, zipfile.ZIP_BZIP2), "1.png", "deflate"),
    archive("lzma", packed({"1.png": SMALL}, zipfile.ZIP_LZMA), "1.png", "deflate"),
    archive(
        "name not UTF-8",
        packed({"ü.png": SMALL}).replace("ü".encode(), b"\xff\xff"),
        "not a readable zip archive",
    ),
    archive(
        "same member twice",
        packed({"1.png": SMALL, "2.png": SMALL}).replace(b"2.png", b"1.png"),
        "1.png twice",
    ),
    archive("no image", zipped({"notes.txt": b""}), "holds no image"),
    archive("image in it truncated", packed({"1.png": SMALL[:45]}), "1.png: not a readable"),
]
ALL = [*CONFIG, *IMAGES, *MANIFESTS, *ARCHIVES]
