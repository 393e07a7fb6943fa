"""README and Concepts quote figures: they are those of the committed files."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import REPO
from omegaconf import OmegaConf

import readme_table
from advloop.models.denoiser import Denoiser, unet_config
from advloop.params.diffusion import UNetParams
from advloop.params.loader import Params

README = (REPO / "README.md").read_text()


def test_readme_has_at_most_900_words():
    assert len(README.split()) <= 900


def test_readme_shows_the_scores_of_the_committed_run():
    scores = json.loads((REPO / "reports/metrics.json").read_text())
    assert readme_table.table(scores) in README, "run `python tools/readme_table.py`"


def test_table_leaves_out_what_was_not_measured_and_sorts_rounds_by_number():
    names = ("reals", "autoencoder", "base", "iter_2", "iter_10")
    held_out = {name: {"kid_lite0": 1.0, "kid_lite0_ci95": 0.125} for name in names}
    training = {name: {"disc_val_accuracy": 0.5} for name in ("iter_10", "iter_2")}
    lines = readme_table.table({"held_out": held_out, "training": training}).splitlines()
    assert lines[4:] == [
        "| base model |  |  |  | 1.00 ± 0.13 |  |  |  |",
        "| after round 2 |  |  |  | 1.00 ± 0.13 |  |  | 0.50 |",
        "| after round 10 |  |  |  | 1.00 ± 0.13 |  |  | 0.50 |",
    ]


def test_table_has_the_base_model_with_few_steps_if_the_rounds_take_fewer_and_the_cost_of_each():
    steps = {"reals": {}, "autoencoder": {}, "base": 25, "base_few_steps": 8, "iter_0": 8}
    held_out = {name: {"network_calls": float(n)} if n else {} for name, n in steps.items()}
    lines = readme_table.table({"held_out": held_out, "training": {"iter_0": {}}}).splitlines()
    assert [line.split(" | ")[:2] for line in lines[4:]] == [
        ["| base model", "25"],
        ["| base model, few steps", "8"],
        ["| after round 0", "8"],
    ]


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_concepts_describe_the_scales_as_they_are_in_conf(scale):
    path = REPO / f"conf/scale/{scale}.yaml"
    conf, params = OmegaConf.load(path), Params.load(path).section("unet", UNetParams)
    size, factor = conf.data.image_size, conf.autoencoder.factor
    channels, cells = conf.autoencoder.latent_channels, size // factor
    with torch.device("meta"):
        unet = Denoiser(unet_config(params, channels, cells))
    millions = sum(p.numel() for p in unet.parameters()) / 1e6
    levels = "/".join(map(str, conf.unet.block_out_channels))
    row = (
        f"| `{scale}` | {size}×{size} | [{channels}, {cells}, {cells}] | {levels}, "
        f"{millions:.2g} M | {conf.num_iterations} | {conf.generate.num_samples} |"
    )
    assert row in (REPO / "docs/concepts.md").read_text()
