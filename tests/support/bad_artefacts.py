"""What is wrong with latents, manifests and scores that stages hand on, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bad_files import Code, Plant, array, cut, drop, edited, encoded, pickled, put, resaved, saved
from bad_source import Bad
from PIL import Image
from stage_folder import FAKE, LISTED, PREDICTED, REAL, REPLAY, ROUND

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


def fact(**changes: Any) -> Wrong:
    return json_with(lambda facts: facts | changes)


def with_scores(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Wrong:
    """Change every score of a model; None leaves one out."""
    return json_with(lambda c: c | {"scores": [s for s in map(change, c["scores"]) if s]})


def without(metric: str, split: str) -> Wrong:
    gone = (metric, split)
    return with_scores(lambda s: None if (s["metric"]["name"], s["split"]) == gone else s)


def without_last_line(path: str) -> Plant:
    return edited(path, lambda text: "".join(text.splitlines(keepends=True)[:-1]))


def copies(root: Path) -> None:
    """Give the training set the test images, as copies of one photograph would."""
    test = torch.load(root / "latents/test.pt", weights_only=True)
    saved("latents/train.pt", test)(root)


fake, predicted = wrong("train_disc", FAKE), wrong("train_disc", PREDICTED)
real, listed = wrong("train_disc", REAL), wrong("train_disc", LISTED)
replay, fakes = wrong("train_disc", REPLAY), wrong("train_diffusion", FAKE)
train, val = (wrong("train_base", f"latents/{name}.pt") for name in ("train", "val"))
to_draw, to_draw_val = (wrong("encode", f"latents/{name}.pt") for name in ("train", "val"))
test, stats = wrong("evaluate_base", "latents/test.pt"), wrong("select_model", "latents/stats.json")
images = wrong("encode_dataset", "data/images.npy")
manifest = wrong("encode_dataset", "data/manifest.csv")
classes = wrong("generate", "latents/classes.pt")
CLASSES = {
    "names": ["a", "b"],
    "labels": {s: torch.zeros(24).long() for s in ("train", "val", "test")},
}


def classed(stage: str, *says: str) -> Bad:
    """Latents that have classes, beside images and models that have none."""
    plant = saved("latents/classes.pt", CLASSES)
    return Bad(f"classes of latents alone: {stage}", stage, plant, says)


LATENTS = [
    fake("code", holds([Code()]), "refused"),
    fake("truncated", cut, "damaged"),
    fake("a dict", holds({"a": 1}), "must hold one tensor"),
    fake("NaN", becomes(lambda t: t * NAN), "NaN"),
    fake("float64", becomes(torch.Tensor.double), "float64"),
    fake("no rows", becomes(lambda t: t[:0]), "no latent"),
    real("another scale", becomes(lambda t: t[..., :2, :2]), "[4, 2, 2] are not the [4, 4, 4]"),
    predicted("another number", becomes(lambda t: t[1:]), "19 latents for 20 fakes"),
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
    to_draw("missing", drop, "not found"),
    to_draw("a row less", becomes(lambda t: t[1:]), "59 latents of 30 images"),
    to_draw_val("a row more", becomes(lambda t: torch.cat([t, t[:1]])), "13 latents of 12 images"),
    to_draw_val("another scale", becomes(lambda t: t[..., :2, :2]), "are not the [4, 4, 4]"),
    wrong("predict", "latents/train.pt")("a dict", holds({}), "must hold one tensor"),
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
    wrong("evaluate", "data/manifest.csv")("other images", swap(",train", ",val"), "0 training im"),
    classes("code", holds(Code()), "refused"),
    classes("one name", holds(CLASSES | {"names": ["a"]}), "two or more different names"),
    classed("generate", "base/checkpoint_best.pt", "knows 0 classes", "images have 2"),
    classed("train_disc", "real_latents.csv", "0 classes for 20 latents"),
    classed("predict", "base/checkpoint_best.pt", "knows 0 classes", "images have 2"),
    Bad("test images in train", "evaluate_base", copies, ("data.source", "copies", "remove")),
]

reals = wrong("evaluate", "reals/reals.pt")
tuned, base = (wrong("report", f"{folder}/evaluation/scores.json") for folder in (ROUND, "base"))
chosen, floor = (
    wrong("select_model", f"{ROUND}/evaluation/scores.json"),
    wrong("report", "reals/reals.json"),
)
samples = wrong("select_model", "base/evaluation/samples.png")
strip, grid, facts = (
    wrong("report", f"{ROUND}/evaluation/{name}")
    for name in ("strip.png", "viability.png", "facts.json")
)
exam = wrong("report", "reals/exam.json")


def split_becomes(**changes: Any) -> Any:
    return becomes(lambda c: c | {"test": c["test"] | changes})


numbers, history = (
    wrong("report", f"{ROUND}/{name}")
    for name in ("discriminator/metrics.json", "model/metrics.csv")
)
published = wrong("publish", f"{ROUND}/model/checkpoint_latest.pt")

EVALUATION = [
    reals("code", holds(Code()), "refused"),
    reals("a list", holds([]), "list"),
    reals("other groups", split_becomes(groups=["g"] * 5), "12 images of test, but 5"),
    reals("groups of no name", split_becomes(groups=[[]] * 12), "no names"),
    reals("no features", split_becomes(features=1), "not a set of"),
    reals("distance 0", becomes(lambda c: c | {"nearest": 0.0}), "nearest=0.0 must be positive"),
    reals("NaN", becomes(lambda c: c | {"more": [torch.ones(1) * NAN]}), "NaN"),
    exam("missing", drop, "not found"),
    exam("not JSON", says("{"), "not valid JSON"),
    exam("a list", says("[]"), "not an exam"),
    exam("other figures", swap('"layout"', '"texture"'), "exam"),
    tuned("missing", drop, "not found"),
    tuned("not JSON", says("hello"), "not valid JSON"),
    tuned("a list", says("[]"), "not the scores of a model"),
    tuned("nested too deep", says("[" * 100_000), "not valid JSON"),
    tuned("another model's", swap('"iter_0"', '"iter_1"'), "scores of iter_1, not iter_0"),
    tuned("NaN", with_scores(lambda s: s | {"values": [NAN] * 3}), "=nan is no"),
    tuned("a text for a value", with_scores(lambda s: s | {"values": ["low"]}), "=low is no"),
    tuned("no value", with_scores(lambda s: s | {"values": []}), "has no value"),
    tuned("no seeds", with_scores(lambda s: s | {"values": s["values"][:1]}), "by seed"),
    tuned("fewer seeds", with_scores(lambda s: s | {"values": s["values"][:2]}), "base model"),
    tuned("another network", swap('"features": "encoder"', '"features": "lite0"'), "kid_lite0"),
    tuned("every score twice", json_with(lambda c: c | {"scores": c["scores"] * 2}), "twice"),
    base("no score", json_with(lambda c: c | {"scores": []}), "no score"),
    base("a metric of no name", with_scores(lambda s: s | {"metric": {}}), "not the scores"),
    floor("another model's", swap('"reals"', '"autoencoder"'), "not reals"),
    chosen("missing", drop, "not found"),
    chosen("code", says(pickled(Code())), "not valid JSON"),
    Bad(
        "scores without a view to select by",
        "select_model",
        without("kid", "tune")(f"{ROUND}/evaluation/scores.json"),
        ("iter_0", "tune kid", "dvc repro"),
    ),
    numbers("a list", says("[]"), "a list"),
    numbers("a text", says('{"val_loss": "low"}'), "val_loss=low is no"),
    strip("missing", drop, "not found"),
    strip("damaged", cut, "not a readable image"),
    strip("of another scale", says(PNG), "9 pixels wide"),
    samples("missing", drop, "not found"),
    samples("damaged", cut, "not a readable image"),
    grid("missing", drop, "not found"),
    grid("damaged", cut, "not a readable image"),
    facts("missing", drop, "not found"),
    facts("not JSON", says("{"), "not valid JSON"),
    facts("a list", says("[]"), "not what stage evaluate writes"),
    facts("no name", fact(neighbours=[{"file": 1, "distance": 1}]), "not what stage evaluate"),
    facts(
        "a number beyond any float", fact(viability={"most": [10**400], "least": []}), "not what"
    ),
    facts("NaN", fact(viability={"most": [NAN], "least": []}), "nan is no"),
    facts("no judgement", fact(viability=None), "no discriminator judged"),
    history("missing", drop, "not found"),
    history("a column less", swap("noise_loss", "noise"), "no column noise_loss"),
    history("a text", swap("1,", "one,"), "not a history of epochs"),
    published("missing", drop, "not found"),
    *(
        wrong(stage, ROUND)("missing", drop, "not found")
        for stage in ("select_model", "publish", "report")
    ),
]
ALL = [*LATENTS, *EVALUATION]
