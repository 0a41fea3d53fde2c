from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from genkit.errors import Code, DataError
from genkit.random import generator
from genkit_aot import assignment
from genkit_aot.arcs import Arcs
from genkit_aot.assignment import assign, find_arcs, gap, solve_dual
from genkit_aot.entropic import Costs
from raising import raises_code

METRIC = {"euclidean": "euclidean", "squared": "sqeuclidean"}


def pool(name, count=300):
    g = generator(0, name, count)
    images, noise = torch.randn((count, 24), generator=g), torch.randn((count, 24), generator=g)
    part = torch.arange(count)
    changed = {
        "gaussian": lambda: (images, noise),
        "clusters": lambda: (0.3 * images + 4 * images[part % 7], noise),
        "twins": lambda: (images[part % (count // 2)], noise),
        "few distinct": lambda: (images[part % 5], noise[part % 3]),
        "equal images": lambda: (images[:1].expand_as(images), noise),
        "equal noise": lambda: (images, noise[:1].expand_as(noise)),
        "all equal": lambda: (images[:1].expand_as(images), images[:1].expand_as(images)),
        "plane": lambda: (images[:, :2], noise[:, :2]),
        "line": lambda: (images[:, :1], noise[:, :1]),
        "grid": lambda: ((3 * images[:, :2]).round(), (3 * noise[:, :2]).round()),
        "outlier": lambda: (torch.where(part[:, None] == 3, 1e5 * images, images), noise),
        "heavy tails": lambda: (images / images[:, :1].roll(1, 0), noise),
        "far": lambda: (images + 100, noise),
        "tiny": lambda: (1e-6 * images, noise),
        "huge": lambda: (1e15 * images, noise),
    }
    return tuple(values.double() for values in changed[name]())


POOLS = [
    "gaussian", "clusters", "twins", "few distinct", "equal images", "equal noise", "all equal",
    "plane", "line", "grid", "outlier", "heavy tails", "far", "tiny", "huge",
]  # fmt: skip


def best(matrix):
    return matrix[linear_sum_assignment(matrix)].sum()


@pytest.mark.parametrize("small", [0, 400])
@pytest.mark.parametrize("cost", ["euclidean", "squared"])
@pytest.mark.parametrize("name", POOLS)
def test_the_total_is_scipys_and_proven(name, cost, small, monkeypatch):
    monkeypatch.setattr(assignment, "DENSE_SIZE", small)
    costs = Costs(*pool(name), cost)
    matrix = costs.whole.clone()
    permutation, bound = assign(costs)
    assert permutation.sort().values.tolist() == list(range(300))
    total = matrix[torch.arange(300), permutation].sum()
    np.testing.assert_allclose(total, best(matrix.numpy()), rtol=1e-10)
    assert 0 <= bound <= 1e-10
    assert torch.equal(costs.whole, matrix)


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_single_precision_is_enough_for_the_pairs_of_double(cost):
    g = generator(0)
    images, noise = torch.rand((400, 3072), generator=g), torch.randn((400, 3072), generator=g)
    permutation, bound = assign(Costs(images, noise, cost))
    full = cdist(images.double(), noise.double(), METRIC[cost])
    np.testing.assert_allclose(full[np.arange(400), permutation].sum(), best(full), rtol=1e-9)
    assert bound <= 1e-12


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257, 300])
def test_pools_about_the_size_at_which_the_route_changes(count):
    costs = Costs(*pool("gaussian", count))
    permutation, bound = assign(costs)
    total = costs.whole[torch.arange(count), permutation].sum()
    np.testing.assert_allclose(total, best(costs.whole.numpy()), rtol=1e-12)
    assert bound <= 1e-12


def test_a_matrix_that_is_not_kept_gives_the_same(monkeypatch):
    images, noise = pool("gaussian")
    kept, _ = assign(Costs(images, noise))
    costs = Costs(images, noise, memory=0.0)
    assert costs.whole is None
    permutation, bound = assign(costs)
    assert torch.equal(permutation, kept)
    assert bound <= 1e-12


def test_arcs_that_were_missing_are_found(monkeypatch):
    monkeypatch.setattr(assignment, "MIN_ENTRY", 0.5)  # far too few at first
    rounds = []

    def counted(arcs, v):
        rounds.append(len(arcs))
        return assign_among(arcs, v)

    assign_among = assignment.assign_among
    monkeypatch.setattr(assignment, "assign_among", counted)
    costs = Costs(*pool("gaussian"))
    permutation, bound = assign(costs)
    assert rounds == sorted(rounds)
    assert len(rounds) > 1
    total = costs.whole[torch.arange(300), permutation].sum()
    np.testing.assert_allclose(total, best(costs.whole.numpy()), rtol=1e-12)
    assert bound <= 1e-12


def test_a_tolerance_ends_the_search_and_the_gap_is_a_bound(monkeypatch):
    monkeypatch.setattr(assignment, "MIN_ENTRY", 0.5)
    costs = Costs(*pool("gaussian"))
    permutation, bound = assign(costs, tolerance=0.5)
    least = best(costs.whole.numpy())
    total = float(costs.whole[torch.arange(300), permutation].sum())
    assert least < total
    assert total / least - 1 <= bound <= 0.5


@pytest.mark.parametrize("name", ["gaussian", "twins", "few distinct", "grid"])
def test_a_wrong_permutation_has_a_gap(name):
    matrix = Costs(*pool(name, 60)).whole.numpy()
    rows, columns = linear_sum_assignment(matrix)
    least = matrix[rows, columns].sum()
    u, v = solve_dual(matrix, columns)
    assert gap(least, u.sum() + v.sum()) <= 1e-12
    wrong = columns.copy()
    # The two images that lose most by changing places.
    swapped = matrix[:, columns] + matrix[:, columns].T
    loss = swapped - swapped.diagonal()[:, None] / 2 - swapped.diagonal() / 2
    i, j = np.unravel_index(loss.argmax(), loss.shape)
    wrong[[i, j]] = wrong[[j, i]]
    total = matrix[rows, wrong].sum()
    u, v = solve_dual(matrix, wrong)
    assert (matrix - u[:, None] - v).min() >= -1e-12
    assert gap(total, u.sum() + v.sum()) >= total / least - 1 > 1e-6


def test_any_potentials_bound_the_least_total():
    costs = Costs(*pool("gaussian"))
    u, v = np.zeros(300), np.random.default_rng(0).normal(size=300)
    arcs, least = find_arcs(costs, torch.from_numpy(u), torch.from_numpy(v), 0.0)
    total = best(costs.whole.numpy())
    assert (u + least + v).sum() < total
    reduced = costs.whole.numpy() - v
    np.testing.assert_allclose(least, reduced.min(axis=1), rtol=1e-12)
    assert len(arcs) == (reduced <= 0).sum()


def test_the_diagonal_makes_a_permutation_possible():
    costs = Costs(*pool("gaussian"))
    zero = torch.zeros(300)
    arcs, _ = find_arcs(costs, zero, zero, -1.0, diagonal=True)
    assert isinstance(arcs, Arcs)
    assert arcs.image.tolist() == arcs.noise.tolist() == list(range(300))


@pytest.mark.parametrize(
    ("total", "least", "expected"),
    [
        (0.0, 0.0, 0.0),
        (3.0, 2.0, 0.5),
        (2.0, 2.0 + 1e-12, 0.0),
        (1.0, 0.0, None),
        (1.0, -1.0, None),
    ],
)
def test_the_gap_is_a_share_of_the_bound(total, least, expected):
    assert gap(total, least) == expected


def test_bad_values_are_named():
    images, noise = pool("gaussian")
    noise[7, 1] = float("inf")
    with raises_code(DataError, Code.NOT_FINITE, "noise 7", "inf"):
        assign(Costs(images, noise))
