"""What `make bench` measures and writes, without its seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import variants
from advloop.core.errors import UserError
from bench import SUBJECTS, chosen
from bench_memory import STAGES, Peak, peaks
from bench_quality import Quality
from bench_tables import (
    growth_table,
    memory_table,
    page,
    read_qualities,
    read_samples,
    write_peaks,
    write_qualities,
    write_samples,
)
from race import Contender, Sample, of, race, ratio

DOCS = Path(__file__).resolve().parents[1] / "docs"


def sample(name: str, index: int, seconds: float, units: float = 10.0, **extra) -> Sample:
    ours = name == "advloop"
    return Sample(
        "training", "demo", name, ours, index, seconds, seconds / 2, units, "images", **extra
    )


SAMPLES = [
    *(sample("advloop", k, s) for k, s in enumerate((1.0, 2.0, 4.0))),
    *(sample("plain", k, s, units=5.0, target=2.5) for k, s in enumerate((2.0, 3.0, 4.0))),
]


def test_every_contender_runs_once_a_round_in_an_order_that_turns_after_a_warm_up():
    calls: list[str] = []
    names = ("a", "b", "c")
    racing = [Contender(n, lambda n=n: calls.append(n), 1.0, ours=n == "a") for n in names]
    samples = race("training", "demo", racing, "images", rounds=3)
    assert "".join(calls) == "abc" + "bca" + "cab" + "abc"
    assert [s.round for s in of(samples, "b")] == [0, 1, 2]


def test_a_ratio_compares_rates_round_by_round():
    """Rates a unit of time: ours 10, 5, 2.5; theirs 2.5, 1.67, 1.25."""
    assert ratio(SAMPLES, "plain", lambda s: s.seconds) == pytest.approx((2.0, 3.0, 4.0))


def test_samples_come_back_from_their_file_and_the_page_names_targets(tmp_path):
    write_samples(tmp_path / "cpu_training.csv", SAMPLES, "a machine")
    assert read_samples(tmp_path / "cpu_training.csv") == (SAMPLES, "a machine")
    text = page(tmp_path)
    assert "## Training step: cpu\n\na machine." in text
    assert "| 3.00 (2.00 to 4.00) | 3.00 (2.00 to 4.00) | 2.5: met |" in text


def test_the_page_is_the_same_whatever_subject_was_measured_last(tmp_path):
    write_peaks(tmp_path / "cpu_memory.csv", [Peak("encode", 5000, 400.0, 800.0, 1.0)])
    write_samples(tmp_path / "cpu_training.csv", SAMPLES, "a machine")
    text = page(tmp_path)
    assert text.index("Training step") < text.index("Peak memory")


def test_the_committed_page_is_made_of_the_committed_files():
    assert (DOCS / "benchmarks.md").read_text() == page(DOCS / "benchmarks")


def test_memory_has_a_row_a_stage_and_two_columns_a_count():
    peaks = [Peak("encode", n, 400.0 + k, 800.0, 1.0) for k, n in enumerate((5000, 20000))]
    assert "| `encode` | 400 | 800 | 401 | 800 |" in memory_table(peaks)


def test_every_stage_runs_on_what_the_memory_benchmark_lays_out():
    found = peaks(counts=(200,))
    assert [peak.stage for peak in found] == list(STAGES)
    assert all(0 < peak.own <= peak.total for peak in found)


def test_qualities_come_back_from_their_file_with_a_row_a_precision(tmp_path):
    first = Quality("iter_1", "fp32", 20.0, 32.3, 2.5, 0.4, 0.1, 0.5547)
    found = [first, replace(first, precision="bf16", kid=32.4)]
    write_qualities(tmp_path / "cpu_quality.csv", found)
    assert read_qualities(tmp_path / "cpu_quality.csv") == found
    row = "| iter_1 | fp32 | 20.0 | 32.3000 ± 2.5000 | 0.4000 ± 0.1000 | 0.554700 |"
    assert row in page(tmp_path)


def test_growth_is_what_each_latent_costs_beyond_the_smaller_number():
    peaks = [
        Peak("encode", n, 0.0, 0.0, s) for n, s in ((5000, 10.0), (20000, 25.0), (80000, 55.0))
    ]
    assert "| `encode` | 10.0 | 25.0 | 55.0 | 1.00 | 0.50 |" in growth_table(peaks)
    assert growth_table(peaks[:1]) == ""


def test_subjects_are_chosen_by_name_and_others_refused():
    assert chosen("memory,training") == ["training", "memory"]
    assert chosen(None) == list(SUBJECTS)
    with pytest.raises(UserError, match="--only speed: unknown"):
        chosen("speed")


def test_variants_that_do_not_train_have_a_forward_alone_and_the_shipped_one_is_the_measure(
    monkeypatch,
):
    quick = (variants.shipped, variants.other_layout, variants.bf16_weights)
    monkeypatch.setattr(variants, "VARIANTS", quick)
    *rows, share = variants.rows("demo", 2, 1, "fp32", torch.device("cpu"))
    cells = [row.strip("| ").split(" | ") for row in rows]
    assert [row[1] for row in cells] == ["shipped", "other layout", "bf16 weights"]
    assert cells[0][2:4] == ["1.00", "1.00"]
    assert float(cells[1][5]) < 1e-3  # the layout changes the order of sums alone
    assert cells[2][2].strip() == ""
    assert "1.00 times as quick" in share  # where both precisions are one
