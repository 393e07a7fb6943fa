"""What README and the committed run say is what is there."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from advloop.comparison import Comparison
from advloop.params.diffusion import UNetParams
from advloop.reporting.report import markdown_table
from advloop.unet import Denoiser, unet_config

REPO = Path(__file__).resolve().parents[1]
README = (REPO / "README.md").read_text()


def test_readme_shows_the_metrics_of_the_committed_run():
    assert markdown_table(json.loads((REPO / "reports" / "metrics.json").read_text())) in README


def test_readme_names_the_paired_changes_of_the_committed_run():
    rows = json.loads((REPO / "reports" / "metrics.json").read_text())["held_out"]
    for iteration, column, digits in (
        ("iter_0", "change_kid_lite0", 2),
        ("iter_0", "change_critic_gap", 3),
        ("iter_1", "change_kid_lite0", 2),
    ):
        mean, half = rows[iteration][column], rows[iteration][f"{column}_ci95"]
        assert mean < 0
        assert f"{mean:.{digits}f} ± {half:.{digits}f}" in README
    assert -rows["iter_0"]["change_critic_gap"] > rows["iter_0"]["change_critic_gap_ci95"]
    assert rows["final"]["iteration"] == 1, "`select` keeps the second"


def test_readme_names_the_change_of_the_whole_run_as_the_report_does():
    page = (REPO / "reports/report.html").read_text().replace("\u00a0", " ")
    changes = re.findall(r"a change of\s+<strong>-([\d.]+ ± [\d.]+)</strong>", page)
    assert len(changes) == 2
    assert all(f"by {change}" in README for change in changes)
    assert "The rounds helped" in page


def test_readme_names_the_differences_to_the_control_of_the_comparison():
    found = Comparison(json.loads((REPO / "docs/results.json").read_text()))
    for metric, digits in (("kid_lite0", 2), ("critic_gap", 3)):
        difference = found.to_control("ddo", metric)
        assert difference is not None
        assert difference.half is not None
        assert f"{-difference.mean:.{digits}f} ± {difference.half:.{digits}f}" in README
        to_seed = found.difference(("ddo", found.last), ("seed", found.last), metric)
        assert to_seed is not None
        assert to_seed.half is not None
        assert f"{-to_seed.mean:.{digits}f} ± {to_seed.half:.{digits}f}" in README


@pytest.mark.parametrize("scale", ["demo", "full"])
def test_readme_describes_the_scales_as_they_are_in_conf(scale):
    conf = OmegaConf.load(REPO / f"conf/scale/{scale}.yaml")
    size, factor = conf.data.image_size, conf.autoencoder.factor
    channels, cells = conf.autoencoder.latent_channels, size // factor
    with torch.device("meta"):
        unet = Denoiser(unet_config(UNetParams(**conf.unet), channels, cells))
    millions = sum(p.numel() for p in unet.parameters()) / 1e6
    levels = "/".join(map(str, conf.unet.block_out_channels))
    row = (
        f"| `{scale}` | {size}×{size} | [{channels}, {cells}, {cells}] | {levels}, "
        f"{millions:.2g} M | {conf.num_iterations} | {conf.generate.num_samples} |"
    )
    assert row in README


def test_every_parameter_that_readme_sets_exists():
    params = OmegaConf.load(REPO / "params.yaml")
    keys = set(re.findall(r"-S ([a-z_0-9.]+)=", README)) - {"objective"}
    assert keys
    for key in keys:
        assert OmegaConf.select(params, key, default="missing") != "missing", key


def test_every_make_target_that_readme_names_exists():
    makefile = (REPO / "Makefile").read_text()
    targets = set(re.findall(r"make ([a-z0-9]+(?:-[a-z]+)*)", README))
    assert {"demo", "test", "params"} <= targets
    for target in targets - {"up"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_relative_link_of_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (REPO / link).exists(), link


def test_make_help_lists_every_target():
    makefile = (REPO / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    for target in phony.group(1).split():
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_shipped_stage1_models_are_small_and_hold_no_pickle():
    files = [p for p in (REPO / "data" / "stage1").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 25_000_000
    assert {p.suffix for p in files if p.stat().st_size > 100_000} == {".safetensors"}


def md5(path: Path) -> str:
    """As dvc.lock has it: a folder's is that of its list of files."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    listed = [{"md5": md5(file), "relpath": file.relative_to(path).as_posix()} for file in files]
    return hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest() + ".dir"


def test_committed_run_was_made_by_the_committed_code():
    stages = yaml.safe_load((REPO / "dvc.lock").read_text())["stages"]
    code = {
        dep["path"]: dep["md5"]
        for stage in stages.values()
        for dep in stage["deps"]
        if dep["path"].startswith(("src/", "stages/"))
    }
    assert len(code) > 50
    stale = [path for path in code if code[path] != md5(REPO / path)]
    assert stale == [], "run `make demo` and commit dvc.lock and reports/"


def test_stage1_models_were_trained_with_the_parameters_of_the_demo():
    record = json.loads((REPO / "data/stage1/stage1.json").read_text())["params"]
    params = OmegaConf.to_container(OmegaConf.load(REPO / "params.yaml"))
    for section in ("autoencoder", "base"):
        params[section]["pretrained"] = None
    # younger than the models; no image is bad, all are square, and none has a class
    record["data"] = {"on_error": "stop", "resize": "crop", "classes": "none"} | record["data"]
    record["diffusion"] = {"beta_start": None, "beta_end": None} | record["diffusion"]
    assert record == {name: params[name] for name in record}


def test_stage1_record_names_the_embedded_data_and_beats_the_required_quality():
    record = json.loads((REPO / "data" / "stage1" / "stage1.json").read_text())
    archive = REPO / "data" / "freedoom_plans.zip"
    assert record["data_sha256"] == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert record["figures"]["val_psnr_db"] >= 24.5
