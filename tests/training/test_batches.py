"""The batches of an epoch: which rows, with which noise and timesteps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_diffusion import make_setup
from small_discriminator import numbered

from advloop.training.batches import Side


def numbered_setup(rows: int, **changes):
    """Its training latents say which row they are, and so do their labels."""
    labels = torch.arange(rows)
    return replace(make_setup(**changes), train=Side(numbered(0, rows), labels))


def batches_of(setup, number: int = 1, *key: str):
    return list(setup.epoch(number, setup.train, *key))


@pytest.mark.parametrize(
    ("samples", "times", "sizes"),
    [
        (None, [1] * 10, [4, 4, 2]),  # every row once
        (4, [0] * 6 + [1] * 4, [4]),  # cut: no row twice
        (25, [2] * 5 + [3] * 5, [4] * 6 + [1]),  # repeated: all rows twice before one comes thrice
    ],
)
def test_rows_are_a_permutation_that_is_cut_or_repeated(samples, times, sizes):
    batches = batches_of(numbered_setup(10, samples_per_epoch=samples))
    assert [len(batch.x0) for batch in batches] == sizes
    rows = torch.cat([batch.x0 for batch in batches]).flatten().long()
    assert sorted(torch.bincount(rows, minlength=10).tolist()) == times
    assert torch.equal(torch.cat([batch.labels for batch in batches]), rows)


def test_random_streams_follow_epoch_iteration_stage_seed_and_key():
    setup = numbered_setup(50)
    first, again = batches_of(setup), batches_of(setup)
    others = [
        batches_of(setup, 2),
        batches_of(replace(setup, iteration=1)),
        batches_of(replace(setup, stage="train_diffusion")),
        batches_of(replace(setup, seed=1)),
        batches_of(setup, 1, "fake"),
    ]
    for field in ("x0", "eps", "timesteps"):
        values = [
            torch.cat([getattr(batch, field).flatten() for batch in batches])
            for batches in (first, again, *others)
        ]
        assert torch.equal(values[0], values[1])
        assert not any(torch.equal(values[0], other) for other in values[2:])
    assert len({float(batch.eps[0, 0, 0, 0]) for batch in first}) == len(first)


def test_timesteps_of_a_batch_cover_the_process_in_random_order():
    (batch,) = batches_of(numbered_setup(100, batch_size=100))
    timesteps = batch.timesteps
    assert (timesteps.sort().values // 10).tolist() == list(range(100))  # one from each stratum
    pairs = torch.stack([timesteps.double(), timesteps.roll(1).double()])
    # standard error 0.1 in random order; ascending ones give 0.94
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.4
