"""Class conditions: where an image's class comes from, and that every part of a round heeds it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_diffusion_training import make_criterion, make_setup, run
from test_disc_data import numbered, params
from tiny_unet import CONFIG

from advloop.classes import (
    Classes,
    apportion,
    label_rows,
    load_classes,
    save_classes,
)
from advloop.core.errors import UserError
from advloop.criterion import held_out
from advloop.dataset import Dataset
from advloop.diffusion_training import Labels
from advloop.disc.data import DiscData, Fakes
from advloop.disc.matched_sides import SideLabels, make_matched_sides
from advloop.disc.replay import replay_labels, update_replay
from advloop.disc.training import judge, train_discriminator
from advloop.discriminator import Discriminator
from advloop.draw import draw_reals
from advloop.evaluation.metrics import measure_classes
from advloop.manifest import classes_of, read_manifest, write_manifest
from advloop.params.diffusion import DiffusionParams, UNetParams
from advloop.params.discriminator import DiscriminatorParams
from advloop.params.sampling import GenerateParams
from advloop.predictions import predict_latents
from advloop.preparation.sources import Item, list_items, open_source
from advloop.preparation.splits import assign_splits, class_lines
from advloop.unet import Denoiser, build_unet, import_base

CPU = torch.device("cpu")
PROCESS = DiffusionParams(1000, "squaredcos_cap_v2", "v_prediction")
TWO = Classes(
    ("day", "night"),
    {name: torch.tensor([0] * 30 + [1] * 10) for name in ("train", "val", "test")},
)


def refusal(function, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    return str(caught.value)


# --- Where an image's class comes from ---


def fill(folder: Path, *files: str, manifest: str | None = None) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"")
    if manifest is not None:
        (folder / "manifest.csv").write_text(manifest)
    return folder


def test_first_sub_folder_is_the_class_and_the_one_below_it_the_group(tmp_path: Path) -> None:
    fill(tmp_path, "cat/a.png", "cat/b.png", "dog/rex/a.png", "dog/rex/more/b.png")
    assert list_items(open_source(tmp_path), "folders") == [
        Item("cat/a.png", "cat/a.png", None, "cat"),  # a class is no group
        Item("cat/b.png", "cat/b.png", None, "cat"),
        Item("dog/rex/a.png", "dog/rex", None, "dog"),
        Item("dog/rex/more/b.png", "dog/rex/more", None, "dog"),
    ]
    groups = {item.group for item in list_items(open_source(tmp_path))}
    assert groups == {"cat", "dog/rex", "dog/rex/more"}  # without classes nothing changes


def test_manifest_names_classes_that_go_across_its_groups(tmp_path: Path) -> None:
    text = "file,group,class\na.png,one,day\nb.png,one,night\n"
    items = list_items(open_source(fill(tmp_path, "a.png", "b.png", manifest=text)), "manifest")
    assert [(item.group, item.label) for item in items] == [("one", "day"), ("one", "night")]
    assert [item.label for item in list_items(open_source(tmp_path))] == [None, None]


@pytest.mark.parametrize(
    ("classes", "manifest", "says"),
    [
        ("folders", None, "a.png lies in no sub-folder"),
        ("manifest", None, "holds no manifest.csv"),
        ("manifest", "file,group\na.png,g\n", "column class is missing"),
        ("manifest", "file,group,class\na.png,g,\n", "class of a.png is ''"),
        ("manifest", 'file,group,class\na.png,g,"a\nb"\n', "class of a.png is 'a\\nb'"),
        ("manifest", "file,group,class\na.png,g,x\nb/c.png,g,x\n", "all images are of class x"),
    ],
)
def test_image_without_a_class_and_a_single_class_are_refused(
    tmp_path: Path, classes: str, manifest: str | None, says: str
) -> None:
    source = open_source(fill(tmp_path, "a.png", "b/c.png", manifest=manifest))
    message = refusal(list_items, source, classes)
    assert says in message
    assert str(tmp_path) in message


def items_of(**groups: int) -> list[Item]:
    """Six images of each group; class by class, ``groups`` of each."""
    return [
        Item(f"{label}/{g}/{k}.png", f"{label}/{g}", None, label)
        for label, count in groups.items()
        for g in range(count)
        for k in range(6)
    ]


def imbalance(items: list[Item], seed: int) -> int:
    """Largest difference of a split's images by day and by night; the file names the class."""
    splits = assign_splits(items, 0.2, 0.2, 0.4, seed)
    counts = Counter((item.file[0], split) for item, split in zip(items, splits, strict=True))
    return max(abs(counts["d", s] - counts["n", s]) for s in ("train", "val", "tune", "test"))


def test_each_split_has_its_share_of_every_class() -> None:
    items = items_of(day=20, night=20)
    assert all(imbalance(items, seed) <= 6 for seed in range(5)), "a group at most"
    few = items + items_of(rare=1)
    for seed in range(5):
        splits = assign_splits(few, 0.2, 0.2, 0.4, seed)
        assert splits[-1] == "train", "a class of one group is learnt before it is measured"
    without = [replace(item, label=None) for item in items]
    assert any(imbalance(without, seed) > 6 for seed in range(5))


def test_class_that_nothing_can_learn_is_refused_and_one_that_is_not_measured_is_named() -> None:
    rare = [Item("rare/0.png", "rare/0", "test", "rare")]
    given = {"0": "test", "1": "tune", "2": "val"}
    items = [
        replace(i, split=given.get(i.group.split("/")[1], "train")) for i in items_of(a=9, b=9)
    ]
    assert "no image of class rare" in refusal(assign_splits, items + rare, 0.2, 0.2, 0.4, 0)
    items += [replace(rare[0], split="train")]
    lines = class_lines(items, [str(item.split) for item in items])
    assert lines[-1].startswith("class rare: 1 train")
    assert lines[-1].endswith("none to look at in val and tune and test: add groups")
    assert class_lines([replace(i, label=None) for i in items], ["train"] * len(items)) == []


def test_manifest_keeps_classes_and_without_them_its_columns(tmp_path: Path) -> None:
    rows = [["a.png", "g", "train", "day"], ["b.png", "h", "val", "night, late"]]
    write_manifest(tmp_path / "with.csv", rows)
    write_manifest(tmp_path / "without.csv", [row[:3] for row in rows])
    assert read_manifest(tmp_path / "with.csv") == rows
    assert classes_of(rows) == ["day", "night, late"]
    assert (tmp_path / "without.csv").read_text().startswith("file,group,split\n")
    assert classes_of(read_manifest(tmp_path / "without.csv")) == []


# --- Labels ---


@pytest.mark.parametrize("count", [0, 1, 7, 39, 40, 600])
def test_shares_add_up_and_differ_from_the_exact_ones_by_less_than_one(count: int) -> None:
    weights = [23, 10, 0, 7]
    shares = apportion(count, weights)
    assert sum(shares) == count
    assert all(abs(s - count * w / 40) < 1 for s, w in zip(shares, weights, strict=True))
    assert shares[2] == 0
    assert count > 40 or all(s <= w for s, w in zip(shares, weights, strict=True))


def test_variants_of_an_image_have_its_label(tmp_path: Path) -> None:
    splits = ["train", "val", "train", "test", "train"]
    names = ["b", "b", "a", "a", "c"]
    dataset = Dataset(np.zeros((5, 1, 1, 3), np.uint8), names, names, splits, names)
    save_classes(tmp_path, label_rows(dataset, {"train": 6, "val": 1, "test": 2}))
    loaded = load_classes(tmp_path)
    assert loaded is not None
    assert loaded.names == ("a", "b", "c")
    assert {k: v.tolist() for k, v in loaded.labels.items()} == {
        "train": [1, 0, 2, 1, 0, 2],
        "val": [1],
        "test": [0, 0],
    }
    assert "6 labels of train for 7 latents" in refusal(
        loaded.of_rows, "train", torch.zeros(7, 1, 2, 2)
    )
    assert load_classes(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "damage",
    [
        {"names": ["a", "a"]},
        {"names": ["a"]},
        {"labels": {"train": torch.tensor([0]), "val": torch.tensor([0])}},
        {"labels": {name: torch.tensor([0, 2]) for name in ("train", "val", "test")}},
        {"labels": {name: torch.zeros(2) for name in ("train", "val", "test")}},
    ],
    ids=["twice", "one", "no-test", "unknown-class", "floats"],
)
def test_damaged_labels_are_one_line(tmp_path: Path, damage: dict[str, object]) -> None:
    good = {"names": ["a", "b"], "labels": dict(TWO.labels)}
    torch.save(good | damage, tmp_path / "classes.pt")
    message = refusal(load_classes, tmp_path)
    assert message.startswith(f"{tmp_path / 'classes.pt'}: not a set of classes")


def test_fakes_have_the_training_sets_shares_of_classes_in_an_order_of_each_iteration() -> None:
    first, again, later = (TWO.of_fakes(100, 0, i) for i in (0, 0, 1))
    assert torch.bincount(first).tolist() == torch.bincount(later).tolist() == [75, 25]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    assert len(first[:20].unique()) == 2, "the first fifth validates"


def test_reals_are_drawn_with_the_shares_of_their_classes_and_all_where_they_are_few() -> None:
    splits = (["train"] * 4 + ["val"]) * 40
    names = [("a", "b", "b", "b")[k // 5 % 4] for k in range(200)]
    files = list(map(str, range(200)))
    dataset = Dataset(np.zeros((200, 1, 1, 3), np.uint8), files, files, splits, names)
    rows = draw_reals(dataset, 100, 0, 0)
    assert Counter((splits[r], names[r]) for r in rows) == {
        ("train", "a"): 20, ("train", "b"): 60, ("val", "a"): 5, ("val", "b"): 15,
    }  # fmt: skip
    assert len(set(draw_reals(dataset, 1000, 0, 0).tolist())) == 200
    assert draw_reals(dataset, 100, 0, 1).tolist() != rows.tolist()


def test_labels_of_the_replay_buffer_are_those_of_its_latents() -> None:
    """Latents that say their own class, through three rounds."""
    buffer = None
    for iteration in range(3):
        labels = TWO.of_fakes(40, 0, iteration)
        buffer = update_replay(labels.float().view(-1, 1, 1, 1), buffer, 0, iteration)
    assert buffer is not None
    assert torch.equal(buffer.flatten().long(), replay_labels(TWO, 40, 0, 2))


def test_predictions_start_from_training_latents_of_their_class() -> None:
    """A network that is told the class, on latents that say theirs: both must agree."""
    train_labels = torch.tensor([0, 1, 2] * 8)
    train = train_labels.float().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    samples = torch.tensor([2, 2, 0, 1] * 5)
    process = replace(PROCESS, prediction_type="sample")

    def network(noisy: torch.Tensor, _: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return 10.0 * labels.view(-1, 1, 1, 1) + noisy.mean((1, 2, 3), keepdim=True).round()

    settings = GenerateParams(20, 1, 6, 0.999)  # alpha_bar of 0.999: hardly noised
    parts = predict_latents(
        network, train, settings, process, 0, 0, "fp32", CPU, list, labels=(train_labels, samples)
    )
    assert torch.cat(list(parts)).flatten().tolist() == (11.0 * samples).tolist()


# --- Real against fake, class by class ---


def test_sides_have_as_many_reals_as_fakes_of_every_class() -> None:
    real_labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    fake = torch.tensor([0] * 30 + [1] * 60 + [2] * 10)
    splits = [("train", "train", "train", "val")[k % 4] for k in range(100)]
    fakes = Fakes(numbered(0), numbered(1000), numbered(2000))
    labels = SideLabels(real_labels, fake, fake.flip(0))
    made, counts = make_matched_sides(
        -1 - numbered(0), fakes, splits, labels, params(0.25, 0.25), 0, 1, CPU
    )
    assert counts["predicted"] > 0
    assert counts["replayed"] > 0
    for name, side in made.items():
        assert side.labels is not None
        real = side.real > 0.5
        assert bool(real[: int(real.sum())].all()), "real first"
        ours, theirs = (torch.bincount(side.labels[part], minlength=3) for part in (real, ~real))
        assert ours.tolist() == theirs.tolist()
        assert int(ours.min()) > 0
        for value, label, is_real in zip(side.latents[:].flatten(), side.labels, real, strict=True):
            index = int(value)
            if is_real:
                assert label == real_labels[-1 - index]
                assert splits[-1 - index] == name
            else:
                kind = labels.earlier if index >= 2000 else fake
                assert kind is not None
                assert label == kind[index % 1000]
                assert name == "train" or index < 2000


def test_class_without_reals_on_a_side_has_no_fakes_there() -> None:
    labels = SideLabels(torch.tensor([0] * 20 + [1] * 5), torch.tensor([0, 1] * 20))
    splits = ["train", "val"] * 10 + ["train"] * 5
    made, _ = make_matched_sides(
        -1 - numbered(0, 25), Fakes(numbered(0, 40)), splits, labels, params(), 0, 0, CPU
    )
    assert made["val"].labels is not None
    assert made["val"].labels.unique().tolist() == [0]
    message = refusal(
        make_matched_sides, -1 - numbered(0, 25), Fakes(numbered(0, 40)), ["train"] * 25, labels,
        params(), 0, 0, CPU,
    )  # fmt: skip
    assert message.startswith("train_disc: the val side has no pair")


def test_logit_of_a_class_is_the_common_one_plus_the_product_with_its_vector() -> None:
    torch.manual_seed(0)
    model = Discriminator(4, [8], 0.0, num_classes=3).eval()
    plain = Discriminator(4, [8], 0.0).eval()
    assert model.class_vectors is not None
    latents, labels = torch.randn(5, 4, 8, 8), torch.tensor([0, 1, 2, 1, 0])
    state = {k: v for k, v in model.state_dict().items() if k != "class_vectors.weight"}
    plain.load_state_dict(state)
    torch.testing.assert_close(model(latents, None, labels), plain(latents))
    torch.nn.init.normal_(model.class_vectors.weight)
    pooled = model.features(latents).mean((2, 3))
    expected = plain(latents) + (pooled * model.class_vectors.weight[labels]).sum(1)
    torch.testing.assert_close(model(latents, None, labels), expected)
    for wrong, args in ((model, (latents,)), (plain, (latents, None, labels))):
        with pytest.raises(ValueError, match="labels"):
            wrong(*args)


def accuracy_of(num_classes: int) -> float:
    """On reals that are bright in class 0 and dark in class 1, and fakes the other way round."""
    labels, real = torch.tensor([0, 0, 1, 1] * 32), torch.tensor([1.0, 0.0] * 64)
    bright = (real > 0.5) == (labels == 0)
    noise = 0.3 * torch.randn(128, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents = noise + torch.where(bright, 1.0, -1.0).view(-1, 1, 1, 1)
    data = DiscData(latents, real, labels=labels if num_classes else None)
    settings = replace(params(), epochs=15)
    model_params = DiscriminatorParams(False, [8], 0.0)
    result = train_discriminator(
        settings,
        model_params,
        data,
        data,
        torch.ones(1000),
        0,
        0,
        lambda _: None,
        num_classes=num_classes,
    )
    model = Discriminator(**result.config)
    model.load_state_dict(result.final)
    return judge(model, data, 32).accuracy


def test_discriminator_that_is_told_classes_tells_what_no_other_can() -> None:
    assert accuracy_of(2) > 0.95
    assert accuracy_of(0) < 0.6


# --- The diffusion model ---


def test_network_learns_what_its_classes_look_like() -> None:
    labels = torch.tensor([0, 1] * 16)
    latents = torch.where(labels > 0, 1.0, -1.0).view(-1, 1, 1, 1).expand(-1, 4, 8, 8).clone()
    setup = make_setup(
        replace(make_criterion(prediction_type="sample"), discriminator=None),
        epochs=12,
        learning_rate=1e-2,
        samples_per_epoch=32,
    )
    setup = replace(setup, train=latents, val=latents, labels=Labels(labels, labels))
    denoiser = build_unet(CONFIG | {"num_class_embeds": 2}, seed=0)
    run(setup, denoiser)
    right, wrong = (
        held_out(setup.criterion, denoiser, latents, 0, 16, labels=told)["loss"]
        for told in (labels, 1 - labels)
    )
    assert right < 0.8 * wrong


UNET = UNetParams([8, 16], 1, [], 4)


def test_class_conditional_network_is_imported_where_the_images_have_its_classes(
    tmp_path: Path,
) -> None:
    saved = Denoiser(CONFIG | {"num_class_embeds": 2})
    saved.unet.save_pretrained(tmp_path / "told")
    Denoiser(CONFIG).unet.save_pretrained(tmp_path / "plain")
    torch.save(saved.unet.state_dict(), tmp_path / "told.pt")
    for path in (tmp_path / "told", tmp_path / "told.pt"):
        made = import_base(path, (4, 8, 8), UNET, PROCESS, ("day", "night"))
        assert torch.equal(made.unet.class_embedding.weight, saved.unet.class_embedding.weight), (
            path
        )
    for name, classes in (("told", ()), ("told", ("a", "b", "c")), ("plain", ("a", "b"))):
        message = refusal(import_base, tmp_path / name, (4, 8, 8), UNET, PROCESS, classes)
        assert f"knows {2 * (name == 'told')} classes" in message
        assert f"have {len(classes)};" in message


def test_exported_model_starts_no_run_whose_classes_have_other_names(tmp_path: Path) -> None:
    folder = tmp_path / "final/unet"
    Denoiser(CONFIG | {"num_class_embeds": 2}).unet.save_pretrained(folder)
    (tmp_path / "final/classes.json").write_text(json.dumps(["day", "night"]))
    for path in (folder, folder.parent):
        import_base(path, (4, 8, 8), UNET, PROCESS, ("day", "night"))
        message = refusal(import_base, path, (4, 8, 8), UNET, PROCESS, ("dusk", "night"))
        assert "dusk, night" in message
        assert str(tmp_path / "final/classes.json") in message


# --- The figure ---


def test_kid_of_each_class_sees_labels_that_are_not_heeded() -> None:
    stream = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1] * 20)
    centre = torch.where(labels > 0, 3.0, -3.0)[:, None]
    real, heeding = (torch.randn(40, 8, generator=stream) + centre for _ in range(2))

    def figure(samples: torch.Tensor) -> float:
        return measure_classes([samples], [labels], real, labels, "net")["class_kid_net"][0]

    assert abs(figure(heeding)) < 0.1 * figure(heeding.roll(1, 0))
    alone = measure_classes([heeding[:2]], [labels[:2]], real, labels, "net")
    assert alone == {}, "one sample of a class has no KID"
