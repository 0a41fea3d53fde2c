from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from genkit import tensors
from genkit.errors import DataError, SettingError
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.types import Batch
from genkit_aot.hungarian import Hungarian

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_laws(cost):
    check_coupler(Hungarian(cost=cost), minimises=cost)


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


def test_unlike_lengths_are_refused():
    with pytest.raises(DataError, match="4 images cannot be paired with 3 noises"):
        Hungarian().pair(Batch(torch.zeros(4, 2)), torch.ones(3, 2), generator(0))


def test_an_unknown_cost_is_refused():
    with pytest.raises(SettingError, match='cost: "manhattan" is none of "euclidean", "squared"'):
        Hungarian(cost="manhattan")
