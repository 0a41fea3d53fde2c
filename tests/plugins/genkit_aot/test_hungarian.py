from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from genkit import tensors
from genkit.errors import Code, DataError, SettingError
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.testing.elsewhere import check_processes
from genkit.types import Batch
from genkit_aot.hungarian import Hungarian
from raising import raises_code

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_laws(cost):
    check_coupler(Hungarian(cost=cost), minimises=cost, another_process=False)


def test_pairs_are_alike_in_another_process():
    check_processes([Hungarian(cost=cost) for cost in ("euclidean", "squared")])


@pytest.mark.parametrize("size", [64, 200])
def test_pairs_equal_the_reference(size):
    golden, _ = tensors.load(DATA / f"assignment_{size}.safetensors")
    pairs = Hungarian().pair(Batch(golden["images"]), golden["noise"], generator(0))
    assert torch.equal(golden["noise"][pairs.noise], golden["paired_noise"])


@pytest.mark.parametrize(
    ("cost", "metric"), [("euclidean", "euclidean"), ("squared", "sqeuclidean")]
)
def test_the_total_is_scipys_optimum(cost, metric):
    g = generator(0, "test")
    data, noise = torch.randn((50, 6), generator=g) + 1, torch.randn((50, 6), generator=g)
    pairs = Hungarian(cost=cost).pair(Batch(data), noise, g)
    full = cdist(data.double(), noise.double(), metric)
    best = full[linear_sum_assignment(full)].sum()
    np.testing.assert_allclose(full[pairs.data, pairs.noise].sum(), best, rtol=1e-6)


def test_the_two_costs_differ():
    golden, _ = tensors.load(DATA / "assignment_200.safetensors")
    batch = Batch(golden["images"])
    one, other = (
        Hungarian(cost=cost).pair(batch, golden["noise"], generator(0)).noise
        for cost in ("euclidean", "squared")
    )
    assert not torch.equal(one, other)


def large_pool():
    g = generator(0, "large")
    return Batch(torch.rand((300, 3, 4, 4), generator=g)), torch.randn((300, 3, 4, 4), generator=g)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_pairs_of_the_same_values_in_float32(dtype):
    batch, noise = large_pool()
    half, half_noise = batch.with_data(batch.data.to(dtype)), noise.to(dtype)
    narrow = Hungarian().pair(half, half_noise, generator(0))
    wide = Hungarian().pair(half.with_data(half.data.float()), half_noise.float(), generator(0))
    assert torch.equal(narrow.noise, wide.noise)


def test_threads_do_not_disturb_each_other():
    batch, noise = large_pool()
    before = batch.data.clone(), noise.clone()
    alone = Hungarian().pair(batch, noise, generator(0))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda k: Hungarian().pair(batch, noise, generator(k)), range(8)))
    assert all(torch.equal(pairs.noise, alone.noise) for pairs in found)
    assert torch.equal(batch.data, before[0])
    assert torch.equal(noise, before[1])


@pytest.mark.parametrize("size", [40, 300])
def test_the_gap_proves_the_optimum(size):
    batch, noise = large_pool()
    assert Hungarian().pair(batch[:size], noise[:size], generator(0)).gap <= 1e-12


def test_the_gap_is_within_the_tolerance():
    batch, noise = large_pool()
    exact, near = (
        Hungarian(tolerance=tolerance).pair(batch, noise, generator(0)) for tolerance in (0.0, 0.01)
    )
    full = cdist(batch.data.flatten(1).double(), noise.flatten(1).double())
    least, total = (full[pairs.data, pairs.noise].sum() for pairs in (exact, near))
    assert total / least - 1 <= near.gap + 1e-9
    assert near.gap <= 0.01


def test_a_negative_tolerance_is_refused():
    with raises_code(SettingError, Code.OUT_OF_RANGE, "tolerance", "-0.1"):
        Hungarian(tolerance=-0.1)


def test_unlike_lengths_are_refused():
    with raises_code(DataError, Code.WRONG_LENGTH, "4 images", "got 3"):
        Hungarian().pair(Batch(torch.zeros(4, 2)), torch.ones(3, 2), generator(0))


def test_an_unknown_cost_is_refused():
    with raises_code(SettingError, Code.UNKNOWN_CHOICE, "cost"):
        Hungarian(cost="manhattan")
