from __future__ import annotations

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

import genkit
from genkit.errors import Code, DataError
from genkit_bench.measure import (
    cost_at_random,
    cost_of,
    mean_cost,
    solve,
    solve_plainly,
    time_cost_matrix,
)
from raising import raises_code


def flat(pools, size, index=0):
    batch, noise = pools.batch(size, index), pools.noise(size, index)
    return batch.data.double().flatten(1).numpy(), noise.double().flatten(1).numpy()


@pytest.mark.parametrize(
    ("cost", "metric"), [("euclidean", "euclidean"), ("squared", "sqeuclidean")]
)
def test_plain_scipy_finds_the_optimum(pools, cost, metric):
    matrix = cdist(*flat(pools, 20, 3), metric)
    rows, columns = linear_sum_assignment(matrix)
    found = solve_plainly(pools, cost, 20, 3)
    assert found.mean_cost == pytest.approx(matrix[rows, columns].mean(), rel=1e-12)
    assert found.pairs == 20
    assert found.seconds > 0
    assert cost_at_random(pools, cost, 20, 3) == pytest.approx(matrix.trace() / 20, rel=1e-12)
    assert time_cost_matrix(pools, cost, 20, 3) > 0


def test_an_exact_coupler_pays_the_optimum(pools):
    coupler = genkit.component("coupler", "pot-exact", cost="squared")
    plain = solve_plainly(pools, "squared", 20, 0).mean_cost
    assert solve(pools, coupler, 20, 0).mean_cost == pytest.approx(plain, rel=1e-12)


def test_the_mean_cost_is_taken_in_blocks_and_in_float64():
    data, noise = torch.full((3000, 2), 1e4), torch.full((3000, 2), 1e4 + 3)
    assert mean_cost(data, noise, "squared") == 18
    assert mean_cost(data, noise, "euclidean") == pytest.approx(18**0.5, rel=1e-15)


def test_the_cost_is_the_couplers_or_that_of_the_one_inside():
    def named(name, **settings):
        return cost_of(genkit.component("coupler", name, **settings))

    assert named("random") == "euclidean"
    assert named("hungarian", cost="squared") == "squared"
    assert named("partitioned", inner={"use": "hungarian", "cost": "squared"}) == "squared"


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("short", ("image indices", "8 int64", [7])),
        ("float", ("torch.float64",)),
        ("outside", ("noise indices", "0 to 7", 8)),
    ],
)
def test_what_makes_no_pairs_is_refused(registry, pools, broken, told):
    from strangers import Wrong

    with raises_code(DataError, Code.INVALID_RESULT, *told):
        solve(pools, Wrong(broken=broken), 8, 0)


def test_a_coupler_of_the_whole_data_chooses_among_all_of_it(registry, pools):
    from strangers import Nearest

    data = pools.data.data.double().flatten(1).numpy()
    _, noise = flat(pools, 8)
    nearest = cdist(noise, data).min(axis=1).mean()
    assert solve(pools, Nearest(), 8, 0).mean_cost == pytest.approx(nearest, rel=1e-6)


def test_a_coupler_gets_the_noises_that_it_asks_for(registry, pools):
    from strangers import Picky

    noise = pools.noise(8, 0, each=2)[::2]
    expected = mean_cost(pools.batch(8, 0).data, noise, "euclidean")
    assert solve(pools, Picky(), 8, 0).mean_cost == pytest.approx(expected)
