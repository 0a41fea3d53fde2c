from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from genkit import tensors
from genkit.errors import Code, DataError, SettingError
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.types import Batch
from genkit_pot.sinkhorn import Sinkhorn
from raising import raises_code

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def golden():
    return tensors.load(DATA / "assignment_64.safetensors")[0]


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_laws(cost):
    check_coupler(Sinkhorn(cost=cost, epsilon=0.3), another_process=False)


def drawn_cost(golden, epsilon):
    coupler = Sinkhorn(epsilon=epsilon)
    pairs = coupler.pair(Batch(golden["images"]), golden["noise"], generator(0))
    cost = tensors.pairwise_cost(golden["images"], golden["noise"])
    return float(cost[pairs.data, pairs.noise].mean())


def test_cost_falls_from_random_to_exact_as_epsilon_falls(golden):
    cost = tensors.pairwise_cost(golden["images"], golden["noise"])
    best = float(cost[linear_sum_assignment(cost.numpy())].mean())
    gains = [
        (float(cost.mean()) - drawn_cost(golden, e)) / (float(cost.mean()) - best)
        for e in (100, 1, 0.02)
    ]
    assert gains[0] < 0.3
    assert gains == sorted(gains)
    assert gains[2] > 0.9


def test_a_noise_is_used_once_in_expectation(golden):
    uses = torch.zeros(64)
    draws = 400
    for index in range(draws):
        pairs = Sinkhorn().pair(Batch(golden["images"]), golden["noise"], generator(index))
        uses += pairs.noise.bincount(minlength=64)
    # The number of uses in a pool has at most the variance 1 of a Poisson count.
    assert bool(((uses / draws - 1).abs() < 5 / draws**0.5).all())


def test_the_draw_comes_from_the_generator(golden):
    one, same, other = (
        Sinkhorn().pair(Batch(golden["images"]), golden["noise"], generator(seed)).noise
        for seed in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_one_image_may_choose_among_many_noises(golden):
    pairs = Sinkhorn().pair(Batch(golden["images"][:10]), golden["noise"], generator(0))
    assert pairs.data.tolist() == list(range(10))
    assert int(pairs.noise.max()) < 64


def test_epsilon_is_relative_to_the_costs(golden):
    far = golden["images"].double() * 1000, golden["noise"].double() * 1000
    scaled = Sinkhorn().pair(Batch(far[0]), far[1], generator(0))
    plain = Sinkhorn().pair(
        Batch(golden["images"].double()), golden["noise"].double(), generator(0)
    )
    assert torch.equal(scaled.noise, plain.noise)


def test_costs_that_are_all_alike_give_any_noise():
    pairs = Sinkhorn().pair(Batch(torch.zeros(50, 2)), torch.ones(50, 2), generator(0))
    assert len(pairs.noise.unique()) > 20


def test_no_convergence_is_told_with_what_to_do(golden):
    with raises_code(DataError, Code.NOT_CONVERGED, "64", "epsilon"):
        Sinkhorn(epsilon=0.01, iterations=1).pair(
            Batch(golden["images"]), golden["noise"], generator(0)
        )


def test_epsilon_is_above_0():
    with raises_code(SettingError, Code.OUT_OF_RANGE, "epsilon"):
        Sinkhorn(epsilon=0)


@pytest.mark.parametrize("epsilon", [0.3, 100.0])
def test_the_entropy_is_that_of_the_plan(golden, epsilon):
    images, noise = golden["images"].double(), golden["noise"].double()

    found = Sinkhorn(epsilon=epsilon, tolerance=1e-6).pair(Batch(images), noise, generator(0))

    # Sinkhorn's iteration on the kernel, written out.
    cost = tensors.pairwise_cost(images, noise)
    kernel = torch.exp(-cost / (epsilon * cost.std(correction=0)))
    for _ in range(10_000):
        kernel = kernel / kernel.sum(1, keepdim=True)
        kernel = kernel / kernel.sum(0, keepdim=True)
    entropy = float(torch.special.entr(kernel / 64).sum())
    assert found.entropy == pytest.approx(entropy / math.log(64) - 1, abs=1e-4)


def test_equal_costs_have_the_entropy_of_independent_pairs():
    same = torch.ones(8, 3)

    assert Sinkhorn().pair(Batch(same), same, generator(0)).entropy == pytest.approx(1)
