"""What is wrong with latents, manifests and metrics that stages hand on, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_files import (
    Code,
    Plant,
    array,
    cut,
    drop,
    edited,
    encoded,
    pickled,
    put,
    resaved,
    saved,
)
from bad_source import Bad
from PIL import Image

NAN = float("nan")
PNG = encoded(Image.new("RGB", (9, 9)))
Wrong = Callable[[str], Plant]
"""What plants a fault in the file of this path."""


def wrong(stage: str, path: str) -> Callable[..., Bad]:
    """``case(name, fault, *says)`` for what is wrong with one file that a stage reads."""

    def case(name: str, fault: Wrong, *says: str) -> Bad:
        return Bad(f"{path} of {stage}: {name}", stage, fault(path), (path, *says, "dvc repro"))

    return case


def holds(content: Any) -> Wrong:
    return lambda path: saved(path, content)


def says(content: bytes | str) -> Wrong:
    return lambda path: put(path, content)


def becomes(change: Callable[[Any], Any]) -> Wrong:
    return lambda path: resaved(path, change)


def swap(old: str, new: str) -> Wrong:
    return lambda path: edited(path, lambda text: text.replace(old, new))


def pixels(change: Callable[[np.ndarray], np.ndarray]) -> Wrong:
    return lambda path: array(path, change)


def json_with(change: Callable[[Any], Any]) -> Wrong:
    return lambda path: edited(path, lambda text: json.dumps(change(json.loads(text))))


def row_with(**changes: Any) -> Wrong:
    """Change values of the base model's row of an evaluation."""
    return json_with(lambda rows: rows | {"base": rows["base"] | changes})


def without_last_line(path: str) -> Plant:
    return edited(path, lambda text: "".join(text.splitlines(keepends=True)[:-1]))


def copies(root: Path) -> None:
    """Give the training set the test images, as copies of one photograph would."""
    test = torch.load(root / "latents/test.pt", weights_only=True)
    saved("latents/train.pt", test)(root)


fake, predicted = wrong("train_disc", "fake.pt"), wrong("train_disc", "predicted.pt")
real, listed = wrong("train_disc", "real.pt"), wrong("train_disc", "real.csv")
replay, fakes = wrong("train_disc", "replay.pt"), wrong("train_diffusion", "fake.pt")
train, val = (wrong("train_base", f"latents/{name}.pt") for name in ("train", "val"))
test, stats = wrong("evaluate_reals", "latents/test.pt"), wrong("encode", "latents/stats.json")
images = wrong("encode_dataset", "data/images.npy")
manifest = wrong("encode_dataset", "data/manifest.csv")
classes = wrong("generate", "latents/classes.pt")
CLASSES = {
    "names": ["a", "b"],
    "labels": {s: torch.zeros(24).long() for s in ("train", "val", "test")},
}


def classed(stage: str, *says: str) -> Bad:
    """Latents that have classes, beside images and models that have none."""

    def plant(root: Path) -> None:
        torch.save(CLASSES, root / "latents/classes.pt")

    return Bad(f"classes of latents alone: {stage}", stage, plant, says)


LATENTS = [
    fake("code", holds([Code()]), "refused"),
    fake("truncated", cut, "damaged"),
    fake("a dict", holds({"a": 1}), "must hold one tensor"),
    fake("NaN", becomes(lambda t: t * NAN), "NaN"),
    fake("float64", becomes(torch.Tensor.double), "float64"),
    fake("no rows", becomes(lambda t: t[:0]), "no latent"),
    real("another scale", becomes(lambda t: t[..., :2, :2]), "[4, 2, 2] are not the [4, 4, 4]"),
    predicted("another number", becomes(lambda t: t[1:]), "19 latents beside 20"),
    replay("other channels", becomes(lambda t: t[:, :1]), "[1, 4, 4] are not the [4, 4, 4]"),
    replay("no rows", becomes(lambda t: t[:0]), "no latent"),
    listed("a row less", without_last_line, "19 rows for 20 latents"),
    listed("unknown split", swap("train", "dev"), "split=dev is none of train"),
    listed("a PNG", says(PNG), "not a CSV file"),
    listed("a column less", swap(",split", ""), "columns must be file, group, split"),
    fakes("code", holds(Code()), "refused"),
    train("code", holds(Code()), "refused"),
    train("no rows", becomes(lambda t: t[:0]), "no latent"),
    train("oblong", becomes(lambda t: t[..., :2]), "[4, 4, 2] are not square"),
    val("another scale", becomes(lambda t: t[..., :2, :2]), "[4, 2, 2] are not the [4, 4, 4]"),
    test("a row less", becomes(lambda t: t[1:]), "23 latents of 12 images"),
    stats("not JSON", says("{"), "not valid JSON"),
    stats("NaN", json_with(lambda c: c | {"latent_scale": NAN}), "latent_scale=nan"),
    stats("no shift", json_with(lambda c: c | {"latent_shift": None}), "latent_shift=None"),
    stats("a list", says("[]"), "latent_scale=None must be positive"),
    images("code", pixels(lambda a: np.array([Code()] * len(a))), "cannot be read"),
    images("truncated", cut, "cannot be read"),
    images("bad header", says(b"\x93NUMPY\x01\x00\x02\x00{\n"), "cannot be read"),
    images("grey", pixels(lambda a: a[..., :1]), "does not match manifest.csv"),
    manifest("unknown split", swap(",tune", ",dev"), "split=dev is none of train"),
    manifest("no val", swap(",val", ",train"), "no image of split val"),
    classes("code", holds(Code()), "refused"),
    classes("one name", holds(CLASSES | {"names": ["a"]}), "not two or more"),
    classed("generate", "base/checkpoint_best.pt", "knows 0 classes", "images have 2"),
    classed("train_disc", "real.csv", "0 classes for 20 latents"),
    classed("evaluate_reals", "manifest.csv", "has 0 classes", "latents have 2"),
    Bad("test images in train", "evaluate_reals", copies, ("data.source", "copies", "remove")),
]

reals, figures = wrong("evaluate", "reals/reals.pt"), wrong("evaluate", "disc/metrics.json")
previous, picture = wrong("evaluate", "reals/reals.json"), wrong("evaluate", "reals/reals.png")
chosen = wrong("select_model", "evaluation/base.json")
told, shown = (
    wrong("report", f"evaluation/iter_0{name}") for name in (".json", "/iter_0/facts.json")
)
grid, epochs = (
    wrong("report", f"evaluation/iter_0/iter_0/{name}")
    for name in ("viability.png", "diffusion.csv")
)
listing = wrong("evaluate", "data/manifest.csv")

EVALUATION = [
    reals("code", holds(Code()), "refused"),
    reals("a list", holds([]), "list"),
    reals("other groups", becomes(lambda c: c | {"groups": ["g"] * 5}), "12 images, not 5"),
    reals("groups of no name", becomes(lambda c: c | {"groups": [[]] * 12}), "no names"),
    reals("no features", becomes(lambda c: c | {"features": 1}), "not a set of"),
    reals("distance 0", becomes(lambda c: c | {"nearest": 0.0}), "nearest=0.0 must be positive"),
    reals("NaN", becomes(lambda c: c | {"more": [torch.ones(1) * NAN]}), "NaN"),
    previous("not JSON", says("hello"), "not valid JSON"),
    previous("a list", says("[]"), "not a list"),
    previous("nested too deep", says("[" * 100_000), "not valid JSON"),
    picture("missing", drop, "not found"),
    picture("damaged", cut, "not a readable image"),
    picture("narrower", says(PNG), "9 pixels wide"),
    figures("a list", says("[]"), "not a list"),
    figures("a text", says('{"val_loss": "low"}'), "val_loss=low must be a finite number"),
    chosen("code", says(pickled(Code())), "not valid JSON"),
    chosen("a list", says("[]"), "not a list"),
    chosen("no row of the model", swap('"base"', '"iter_0"'), "base has no row"),
    chosen("a row of no model", swap('"reals"', '"real"'), "real is no row"),
    chosen("NaN", row_with(tune_kid_encoder=NAN), "base.tune_kid_encoder=nan"),
    chosen("no KID", swap("kid", "fid"), "0 KID columns"),
    chosen(
        "a later model is best",
        json_with(lambda c: c | {"iter_0": c["base"] | {"tune_kid_encoder": -1e9}}),
        "iter_0 is best",
    ),
    listing("other images", swap(",train", ",val"), "0 training images for"),
    told("no round", json_with(lambda c: c | {"iter_1": c.pop("iter_0")}), "iter_0 has no row"),
    shown("not JSON", says("{"), "not valid JSON"),
    shown("a list", says("[]"), "not what stage evaluate writes"),
    shown(
        "no name", json_with(lambda c: c | {"neighbours": [{"file": 1, "distance": 1}]}), "1 is no"
    ),
    shown(
        "a number beyond any float",
        json_with(lambda c: c | {"viability": {"most": [10**400], "least": []}}),
        "not what stage evaluate writes",
    ),
    shown("NaN", json_with(lambda c: c | {"viability": {"most": [NAN], "least": []}}), "nan is no"),
    shown("no judgement", json_with(lambda c: c | {"viability": None}), "no discriminator judged"),
    grid("damaged", cut, "not a readable image"),
    grid("missing", drop, "not found"),
    epochs("a column less", swap("noise_loss", "noise"), "no column noise_loss"),
    epochs("a text", swap("1,", "one,"), "not a history of epochs"),
    epochs("missing", drop, "not found"),
    told("no floor", json_with(lambda c: {"base": c["base"]}), "reals has no row"),
    told("a text for a figure", row_with(kid_encoder="low"), "base.kid_encoder=low"),
    told(
        "a model without an interval",
        json_with(lambda c: c | {"base": {k: v for k, v in c["base"].items() if k[-4:] != "ci95"}}),
        "base has no kid_encoder with interval",
    ),
    told("a model without seeds", row_with(seeds={}), "base has no kid_encoder by seed"),
]
ALL = [*LATENTS, *EVALUATION]
