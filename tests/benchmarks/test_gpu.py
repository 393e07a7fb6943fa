"""The script that measures a GPU, run without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gpu
import variants
from gpu_bench import Bench, Figure
from gpu_kernels import report_kernels

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADVLOOP_DEVICE", "cpu")


def run(out: Path, *options: str) -> dict[str, dict[str, float]]:
    """The figures that it wrote, by part and name."""
    gpu.main(["--out", str(out), "--tiny", *options])
    found: dict[str, dict[str, float]] = {}
    for one in json.loads((out / "gpu.json").read_text())["figures"]:
        found.setdefault(one["part"], {})[one["name"]] = one["value"]
    return found


def test_parts_write_their_figures_in_the_order_asked_for(tmp_path: Path):
    found = run(tmp_path, "--only", "sampling,batch sizes,precision")
    assert list(found) == ["sampling", "batch sizes", "precision"]
    assert found["sampling"]["advloop"] > 0
    assert found["sampling"]["ours / bare forwards, bf16"] > 0
    assert 0 < max(v for k, v in found["batch sizes"].items() if "fp32" in k) < 1e-4
    assert 0 < found["precision"]["samples, bf16 against fp32 (at most 0.02)"] < 0.02


def test_a_part_that_fails_or_has_no_time_left_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(_: Bench) -> None:
        raise RuntimeError("no such kernel")

    def fine(bench: Bench) -> None:
        bench.add("speed", 1.0, "m/s")

    monkeypatch.setattr(
        gpu, "parts", lambda _: {"broken": (broken, 1), "slow": (fine, 1e9), "fine": (fine, 1)}
    )
    assert run(tmp_path) == {"fine": {"speed": 1.0}}
    notes = json.loads((tmp_path / "gpu.json").read_text())["notes"]
    assert notes["broken"] == "failed: RuntimeError: no such kernel\n"
    assert notes["slow"].startswith("left out")
    assert "no such kernel" in capsys.readouterr().out


def test_every_target_is_met_or_its_share_is_printed():
    assert "target 4: met" in str(Figure("a", "b", 4.0, "x", 4.0))
    assert "target 4: missed, 75% of it" in str(Figure("a", "b", 3.0, "x", 4.0))
    assert "target" not in str(Figure("a", "b", 3.0, "x"))


def test_idle_time_is_what_no_kernel_covers_in_the_middle_half(tmp_path: Path):
    """Busy from 0 to 4 and from 6 to 8, and 5 to 7 beside it: of 2 to 6, one is idle."""
    bench = Bench(CPU, tmp_path, tiny=True)
    kernels = [("conv", 0.0, 4.0), ("groupnorm", 5.0, 7.0), ("conv", 6.0, 8.0)]
    report_kernels(bench, kernels, steps=2)
    found = {figure.name: figure.value for figure in bench.figures}
    assert found["idle in the middle of the profile"] == pytest.approx(0.25)
    assert found["kernels a step"] == pytest.approx(8 / 2 / 1e3)
    assert found["group convolutions and products"] == pytest.approx(6 / 2 / 1e3)


def test_quick_norms_keep_the_type_and_the_gradients():
    ours, quick = variants.make_variants(
        "demo", 2, "fp32", CPU, (variants.shipped, variants.quick_norms)
    ).values()
    assert max(variants.differences(ours.gradients(), quick.gradients())) < 1e-3
    norm = variants.QuickNorm(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(torch.randn(2, 8, 4, 4).bfloat16()).dtype == torch.bfloat16
