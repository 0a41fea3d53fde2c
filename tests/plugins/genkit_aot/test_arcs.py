from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from genkit_aot.arcs import Arcs, assign


def arcs_of(matrix, keep=None):
    image, noise = np.nonzero(np.ones_like(matrix) if keep is None else keep)
    return Arcs(len(matrix), image, noise, matrix[image, noise])


def random(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, count))


def check(matrix, keep, v):
    permutation, u, v = assign(arcs_of(matrix, keep), v)
    masked = np.where(keep, matrix, 1e3)
    rows, columns = linear_sum_assignment(masked)
    assert sorted(permutation) == list(range(len(matrix)))
    total = matrix[rows, permutation].sum()
    np.testing.assert_allclose(total, masked[rows, columns].sum(), rtol=1e-12)
    np.testing.assert_allclose(u.sum() + v.sum(), total, rtol=1e-12)
    assert (matrix - u[:, None] - v)[keep].min() > -1e-9
    return permutation


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_permutation_is_optimal_among_the_arcs_and_the_potentials_prove_it(seed, share):
    matrix, draws = random(60, seed), np.random.default_rng(seed).random((60, 60))
    check(matrix, (draws < share) | np.eye(60, dtype=bool), np.zeros(60))


def test_ties_are_no_trouble():
    matrix = np.random.default_rng(0).integers(0, 4, size=(50, 50)).astype(float)
    check(matrix, np.ones_like(matrix, dtype=bool), np.zeros(50))


def test_poor_potentials_cost_nothing_but_time():
    matrix = random(40)
    whole = np.ones_like(matrix, dtype=bool)
    good = check(matrix, whole, matrix.min(axis=0))
    poor = check(matrix, whole, 100 * np.random.default_rng(1).normal(size=40))
    assert good.tolist() == poor.tolist()


def test_parts_without_an_arc_between_them():
    matrix = random(6)
    keep = np.zeros((6, 6), dtype=bool)
    keep[:3, :3] = keep[3:, 3:] = True
    assert set(check(matrix, keep, np.zeros(6))[:3]) == {0, 1, 2}


def test_the_only_permutation_is_found_whatever_it_costs():
    matrix = np.array([[0.0, 9.0], [1.0, 8.0]])
    keep = np.array([[False, True], [True, True]])
    assert check(matrix, keep, np.zeros(2)).tolist() == [1, 0]


def test_joined_arcs_are_ordered_and_single():
    matrix = random(4)
    one, other = np.eye(4, dtype=bool), np.tri(4, dtype=bool)
    both = arcs_of(matrix, one).union(arcs_of(matrix, other))
    wanted = arcs_of(matrix, other)
    assert both.image.tolist() == wanted.image.tolist()
    assert both.noise.tolist() == wanted.noise.tolist()
    assert both.cost.tolist() == wanted.cost.tolist()
    assert both.total(np.array([0, 1, 2, 3])) == pytest.approx(matrix.trace())
