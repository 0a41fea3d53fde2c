from __future__ import annotations

from pathlib import Path

import ot
import pytest
import torch

from genkit import tensors
from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.types import Batch
from genkit_pot.exact import Exact
from raising import raises_code

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_laws(cost):
    check_coupler(Exact(cost=cost), minimises=cost, another_process=False)


@pytest.mark.parametrize("size", [64, 200])
def test_pairs_equal_the_reference(size):
    golden, _ = tensors.load(DATA / f"assignment_{size}.safetensors")
    pairs = Exact().pair(Batch(golden["images"]), golden["noise"], generator(0))
    assert torch.equal(golden["noise"][pairs.noise], golden["paired_noise"])


def test_ties_still_give_a_permutation():
    data = (torch.arange(300) % 3).float()[:, None]
    pairs = Exact().pair(Batch(data), torch.zeros(300, 1), generator(0))
    assert pairs.noise.sort().values.tolist() == list(range(300))


def test_unlike_lengths_are_refused():
    with raises_code(DataError, Code.WRONG_LENGTH, "4 images", "got 3"):
        Exact().pair(Batch(torch.zeros(4, 2)), torch.ones(3, 2), generator(0))


def test_too_few_iterations_are_told_with_what_to_do():
    golden, _ = tensors.load(DATA / "assignment_64.safetensors")
    with (
        pytest.warns(UserWarning, match="numItermax"),
        raises_code(DataError, Code.NOT_CONVERGED, "64", "iterations"),
    ):
        Exact(iterations=5).pair(Batch(golden["images"]), golden["noise"], generator(0))


def test_a_plan_that_is_no_permutation_is_refused(monkeypatch):
    def emd(a, b, cost, **options):
        return torch.ones(cost.shape).numpy() / len(a), {"warning": None}

    monkeypatch.setattr(ot, "emd", emd)
    with raises_code(DataError, Code.INVALID_RESULT, "4"):
        Exact().pair(Batch(torch.zeros(4, 2)), torch.ones(4, 2), generator(0))
