"""Rows of several tensors behave as one tensor of them, and are no copy."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_disc_training import fit, side

from advloop.disc.gathered import Gathered

SOURCES = [torch.randn(9, 2, 3, 3), torch.randn(5, 2, 3, 3), torch.randn(4, 2, 3, 3)]
ROWS = [torch.tensor([8, 0, 3]), torch.tensor([], dtype=torch.long), torch.tensor([2, 2])]
WHOLE = torch.cat([source[rows] for source, rows in zip(SOURCES, ROWS, strict=True)])


@pytest.mark.parametrize(
    "index",
    [slice(None), slice(1, 4), slice(4, 9), torch.tensor([4, 0, 0, 3]), torch.tensor([]).long()],
)
def test_an_index_gives_what_the_concatenated_tensor_gives(index):
    gathered = Gathered(list(zip(SOURCES, ROWS, strict=True)))
    assert len(gathered) == len(WHOLE)
    assert gathered.shape == WHOLE.shape
    assert torch.equal(gathered[index], WHOLE[index])


def test_rows_gathered_from_gathered_rows_are_read_from_the_tensors_themselves():
    first = Gathered(list(zip(SOURCES, ROWS, strict=True)))
    nested = Gathered([(first, torch.tensor([4, 1])), (SOURCES[0], torch.tensor([5]))])
    outer = Gathered([(nested, torch.tensor([2, 0, 1])), (first, torch.tensor([0]))])
    expected = torch.stack([SOURCES[0][5], WHOLE[4], WHOLE[1], WHOLE[0]])
    assert torch.equal(outer[:], expected)
    assert sorted(map(id, outer._sources)) == sorted(map(id, SOURCES))


def test_what_is_read_is_the_source_as_it_is_then():
    source = torch.zeros(3, 1, 1, 1)
    gathered = Gathered([(source, torch.tensor([2, 0]))])
    source[2] = 7
    assert gathered[:].flatten().tolist() == [7, 0]


def test_a_discriminator_trains_to_the_same_weights_on_gathered_rows_as_on_a_tensor():
    train, val = side(0, 40, 0.3), side(1, 16, 0.3)
    assert isinstance(train.latents, torch.Tensor)
    order = torch.arange(80)
    halves = [(train.latents, order[:17]), (train.latents.clone(), order[17:])]
    dense, gathered = fit(train, val), fit(replace(train, latents=Gathered(halves)), val)
    assert gathered.history == dense.history
    for name, weight in dense.final.items():
        assert torch.equal(gathered.final[name], weight), name
