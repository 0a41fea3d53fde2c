"""Losses by quantile: the sums of a plain loop, whatever the batches and the processes."""

import numpy as np
import pytest
import torch

from genkit.random import generator
from genkit.train.by_quantile import BINS, LossByQuantile
from genkit.world import SINGLE_PROCESS, World

CPU = torch.device("cpu")


def items(count):
    drawn = generator(0, "items")
    quantile = torch.rand(count, generator=drawn, dtype=torch.float64)
    return quantile, torch.randn(count, generator=drawn)


def test_sums_and_numbers_are_those_of_a_histogram():
    quantile, losses = items(500)
    found = LossByQuantile(CPU, SINGLE_PROCESS)
    for start in range(0, 500, 96):
        found.add(quantile[start : start + 96], losses[start : start + 96])
    edges = np.linspace(0, 1, BINS + 1)
    counts, _ = np.histogram(quantile.numpy(), edges)
    sums, _ = np.histogram(quantile.numpy(), edges, weights=losses.double().numpy())
    np.testing.assert_allclose(found.sums().numpy(), [sums, counts], rtol=1e-12, atol=1e-12)


def test_the_ends_of_the_quantiles_lie_in_the_outer_bins():
    tiny = torch.finfo(torch.float64).eps
    found = LossByQuantile(CPU, SINGLE_PROCESS)
    found.add(torch.tensor([tiny, 1 - tiny], dtype=torch.float64), torch.tensor([1.0, 2.0]))
    assert found.sums()[0, [0, -1]].tolist() == [1.0, 2.0]


def test_sums_continue_where_they_were_read():
    quantile, losses = items(64)
    whole, first, second = (LossByQuantile(CPU, SINGLE_PROCESS) for _ in range(3))
    for half in (slice(0, 32), slice(32, 64)):
        whole.add(quantile[half], losses[half])
    first.add(quantile[:32], losses[:32])
    second.begin(first.sums())
    second.add(quantile[32:], losses[32:])
    assert torch.equal(second.sums(), whole.sums())
    second.begin()
    assert not second.sums().any()


@pytest.mark.parametrize(("rank", "count"), [(0, 5.0), (1, 0.0)])
def test_one_process_alone_takes_over_the_sums_of_all(rank, count):
    found = LossByQuantile(CPU, World(rank))
    found.begin(torch.full((2, BINS), 5.0, dtype=torch.float64))
    assert found.sums()[1, 0] == count
