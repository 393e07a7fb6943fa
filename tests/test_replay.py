"""The replay buffer: what it holds after each iteration."""

from __future__ import annotations

import pytest
import torch

from advloop.disc.replay import KEPT, update_replay


def fakes(iteration: int, count: int = 64) -> torch.Tensor:
    """Latents (count, 1, 1, 1) whose value says which one of which iteration it is."""
    return (1000 * iteration + torch.arange(float(count))).view(-1, 1, 1, 1)


def origins(buffer: torch.Tensor, iterations: int) -> list[int]:
    """How many of the buffer's latents come from each iteration; fails if one is there twice."""
    values = buffer.flatten().tolist()
    assert len(set(values)) == len(values)
    return [sum(1000 * i <= v < 1000 * (i + 1) for v in values) for i in range(iterations)]


def grow(iterations: int, seed: int = 0) -> torch.Tensor:
    buffer = None
    for i in range(iterations):
        buffer = update_replay(fakes(i), buffer, seed, i)
    assert buffer is not None
    return buffer


def test_the_first_buffer_is_the_first_fakes():
    buffer = grow(1)
    assert torch.equal(buffer.flatten().sort().values, fakes(0).flatten())


@pytest.mark.parametrize("iterations", [2, 3, 6])
def test_the_buffer_keeps_its_size_and_half_of_it_is_new_every_time(iterations):
    found = origins(grow(iterations), iterations)
    assert sum(found) == 64
    assert found[-1] == 64 * (1 - KEPT) == 32


def test_earlier_iterations_are_forgotten_geometrically():
    """The mean over 200 seeds of how many are left; 8 of 64 with variance below 8 each."""
    counts = torch.tensor([origins(grow(4, seed), 4) for seed in range(200)]).double()
    expected = torch.tensor([8.0, 8.0, 16.0, 32.0]).double()
    # standard error below sqrt(16 / 200) = 0.28; allow four
    torch.testing.assert_close(counts.mean(0), expected, rtol=0, atol=1.13)


def test_the_buffer_is_keyed_by_seed_and_iteration():
    buffer = grow(1)
    assert torch.equal(update_replay(fakes(1), buffer, 0, 1), update_replay(fakes(1), buffer, 0, 1))
    for key in ((1, 1), (0, 2)):
        assert not torch.equal(
            update_replay(fakes(1), buffer, 0, 1), update_replay(fakes(1), buffer, *key)
        )


def test_a_smaller_earlier_buffer_is_kept_whole_and_new_fakes_fill_the_rest():
    found = origins(update_replay(fakes(1), fakes(0, 10), 0, 1), 2)
    assert found == [10, 54]
