"""What `make bench` measures and writes, without its seconds, and the tables of the cost model."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import memory
import step_memory
import variants
from advloop.core.errors import UserError
from advloop.models.adapters import adapted_layers, count_adapter
from advloop.models.architectures import DiT
from advloop.models.denoiser import dit_config
from advloop.params.diffusion import DiTParams
from advloop.training.weights import step_bytes
from bench import SUBJECTS, chosen
from cost_model import Machine, Work, all_reduce_seconds, step_seconds, tables
from memory import Peak
from quality import Quality
from race import Contender, Sample, of, race, ratio
from shapes import ROOT, shape_params
from subjects import SUBJECTS as RACES
from subjects import contenders
from tables import growth_table, memory_table, page, read, write

DOCS = Path(__file__).resolve().parents[2] / "docs"


def sample(name: str, index: int, seconds: float, units: float = 10.0, **extra) -> Sample:
    ours, cpu = name == "advloop", seconds / 2
    return Sample("training", "demo", name, ours, index, seconds, cpu, units, "images", **extra)


SAMPLES = [
    *(sample("advloop", k, s) for k, s in enumerate((1.0, 2.0, 4.0))),
    *(sample("plain", k, s, units=5.0, target=2.5) for k, s in enumerate((2.0, 3.0, 4.0))),
]


def peak_of(count: int, own: float = 400.0, seconds: float = 1.0) -> Peak:
    return Peak("encode", count, own, 800.0, seconds)


# --- Races ---


def test_every_contender_runs_once_a_round_in_rotating_order_after_a_warm_up():
    calls: list[str] = []
    names = ("a", "b", "c")
    racing = [Contender(n, lambda n=n: calls.append(n), 1.0, ours=n == "a") for n in names]
    samples = race("training", "demo", racing, "images", rounds=3)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert [s.round for s in of(samples, "b")] == [0, 1, 2]


def test_a_ratio_compares_rates_round_by_round():
    """Rates a unit of time: ours 10, 5, 2.5; theirs 2.5, 1.67, 1.25."""
    assert ratio(SAMPLES, "plain", lambda s: s.seconds) == pytest.approx((2.0, 3.0, 4.0))


def test_every_stage_runs_on_what_the_memory_benchmark_writes(tmp_path, monkeypatch):
    """In this process, and one in its own, which is measured."""
    memory.prepare(tmp_path, 200)
    found = memory.measure("encode", tmp_path, 200)
    assert 0 < found.own <= found.total
    monkeypatch.chdir(tmp_path)
    for stage, line in memory.STAGES.items():
        monkeypatch.setattr("sys.argv", [stage, *line.split()])
        importlib.import_module(stage).main()


def test_subjects_are_chosen_by_name_and_others_refused():
    assert chosen("memory,training") == ["training", "memory"]
    assert chosen(None) == list(SUBJECTS)
    with pytest.raises(UserError, match="--only speed: unknown"):
        chosen("speed")


@pytest.mark.parametrize("subject", [*RACES])
def test_every_subject_finds_its_contenders_in_the_parameters(subject):
    params = shape_params("demo")
    racing = contenders(subject, params, "demo", "fp32", torch.device("cpu"))
    assert {one.name for one in racing} > {"advloop"}


def test_variants_that_cannot_train_only_run_forward_and_the_shipped_one_is_the_measure(
    monkeypatch,
):
    quick = (variants.shipped, variants.channels_last, variants.bf16_weights)
    monkeypatch.setattr(variants, "VARIANTS", quick)
    *rows, share = variants.rows("demo", 2, 1, "fp32", torch.device("cpu"))
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[1] for row in cells] == ["shipped", "channels last", "bf16 weights"]
    assert cells[0][2:4] == ["1.00", "1.00"]
    assert float(cells[1][5]) < 1e-3  # the layout only changes the order of sums
    assert cells[2][2].strip() == ""
    assert "1.00 times as fast" in share  # both precisions are the same


# --- Files and the page ---


def test_records_come_back_from_their_files_and_the_page_has_them(tmp_path):
    first = Quality("iter_1", "fp32", 20.0, 32.3, 2.5, 0.4, 0.1, 0.5547)
    qualities = [first, replace(first, precision="bf16", kid=32.4)]
    for subject, kind, records, machine in (
        ("memory", Peak, [peak_of(5000)], ""),  # written first, and last on the page
        ("training", Sample, SAMPLES, "a machine"),
        ("quality", Quality, qualities, ""),
    ):
        path = tmp_path / f"cpu_{subject}.csv"
        write(path, records, machine)
        assert read(path, kind) == (records, machine)
    text = page(tmp_path)
    assert "## Training step: cpu\n\na machine." in text
    assert "| 3.00 (2.00 to 4.00) | 3.00 (2.00 to 4.00) | 2.5: met |" in text
    assert text.index("Training step") < text.index("Peak memory")
    row = "| iter_1 | fp32 | 20.0 | 32.3000 ± 2.5000 | 0.4000 ± 0.1000 | 0.554700 |"
    assert row in text


XL = DiTParams(patch_size=2, num_layers=28, num_attention_heads=16, attention_head_dim=72)


def test_page_has_the_table_of_the_steps_that_were_measured_and_they_take_what_is_counted():
    found = step_memory.read()
    assert [(one.objective, one.rank, one.checkpointing) for one in found] == step_memory.CASES
    assert step_memory.table(found) in (ROOT / "docs/scaling.md").read_text()
    for one in found:
        assert one.peak == pytest.approx(one.counted + one.activations, rel=0.15), one


def test_page_has_the_memory_of_a_dit_xl_2_as_it_is_counted():
    config = dit_config(XL, 4, 32, num_classes=1000) | {"out_channels": 8}
    del config["_class_name"]
    with torch.device("meta"):  # without its 3 GB
        network = DiT().build(config)
    count = sum(weight.numel() for weight in network.parameters())
    adapter = count_adapter([*adapted_layers(network, DiT.adapted).values()], 16)
    sizes = [(count, count), (count, count, 1), (count + adapter, adapter)]
    said = [f"{step_bytes(*size) / 2**30:.1f} GiB" for size in sizes]
    page = " ".join((ROOT / "docs/scaling.md").read_text().split())
    assert f"{count / 1e6:.0f} M weights" in page
    assert f"{said[0]} ({said[1]} under `ddo` and `neon`), and with an adapter" in page
    assert f"{said[2]}." in page


def test_memory_has_a_row_a_stage_and_two_columns_a_count():
    table = memory_table([peak_of(5000), peak_of(20000, own=401.0)])
    assert "| `encode` | 400 | 800 | 401 | 800 |" in table


def test_growth_is_what_each_latent_costs_beyond_the_smaller_number():
    peaks = [peak_of(n, seconds=s) for n, s in ((5000, 10.0), (20000, 25.0), (80000, 55.0))]
    assert "| `encode` | 10.0 | 25.0 | 55.0 | 1.00 | 0.50 |" in growth_table(peaks)
    assert growth_table(peaks[:1]) == ""


def test_committed_pages_are_made_from_the_committed_files_and_the_cost_model():
    assert (DOCS / "benchmarks.md").read_text() == page(DOCS / "benchmarks")
    text = (DOCS / "scaling.md").read_text()
    quoted = text.split("<!-- cost_model: begin -->")[1].split("<!-- cost_model: end -->")[0]
    assert quoted.strip() == tables().strip()


# --- The cost model ---


def test_a_ring_of_two_sends_the_whole_once_and_one_gpu_sends_nothing():
    machine = Machine()
    assert all_reduce_seconds(1e9, 2, machine) == pytest.approx(1e9 / machine.inside)
    assert all_reduce_seconds(1e9, 1, machine) == 0


def test_a_step_waits_for_the_last_bucket_or_without_a_backward_pass_for_the_whole_gradient():
    machine = Machine()
    work = Work(50_000_000, 5e9, disc_parameters=1, disc_forward=1.0, latent=1, image=1)
    alone, eight = (step_seconds(work, 10_000, gpus, machine) for gpus in (1, 8))
    assert eight - alone == pytest.approx(all_reduce_seconds(machine.bucket, 8, machine))
    gradient = all_reduce_seconds(4.0 * work.parameters, 64, machine)
    assert step_seconds(work, 0, 64, replace(machine, launch=0.0)) == pytest.approx(gradient)
