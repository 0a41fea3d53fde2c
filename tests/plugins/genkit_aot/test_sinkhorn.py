from __future__ import annotations

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from genkit import tensors
from genkit.errors import Code, DataError, SettingError
from genkit.random import generator
from genkit.testing import check_coupler
from genkit.testing.elsewhere import check_processes
from genkit.types import Batch
from genkit_aot import entropic
from genkit_aot.sinkhorn import Sinkhorn
from raising import raises_code

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def golden():
    return tensors.load(DATA / "assignment_64.safetensors")[0]


def photos(size=512, dimensions=96):
    """Return a pool of which, as of photos, a few directions hold most of the variance."""
    g = generator(0, "photos", size)
    spectrum = 3 / torch.arange(1, dimensions + 1).sqrt()
    return torch.randn((size, dimensions), generator=g) * spectrum, torch.randn(
        (size, dimensions), generator=g
    )


def best_of(cost):
    rows, columns = linear_sum_assignment(cost.numpy())
    return cost[rows, columns].sum()


def gain(images, noise, pairs, cost="euclidean"):
    full = tensors.pairwise_cost(images.double(), noise.double(), cost)
    random = full.mean() * len(full)
    return float((random - full[pairs.data, pairs.noise].sum()) / (random - best_of(full)))


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_laws(cost, rounded):
    check_coupler(Sinkhorn(cost=cost, rounded=rounded), another_process=False)


def test_pairs_are_alike_in_another_process():
    settings = itertools.product(("euclidean", "squared"), (False, True))
    check_processes([Sinkhorn(cost=cost, rounded=rounded) for cost, rounded in settings])


def test_only_rounded_pairs_are_bijective():
    assert not Sinkhorn().bijective
    assert Sinkhorn(rounded=True).bijective


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_nearly_all_of_the_exact_gain_is_reached(cost, rounded):
    images, noise = photos()
    coupler = Sinkhorn(cost=cost, rounded=rounded)
    pairs = coupler.pair(Batch(images), noise, generator(0))
    assert gain(images, noise, pairs, cost) > (0.999 if rounded else 0.99)


def test_cost_falls_from_random_to_exact_as_epsilon_falls(golden):
    images, noise = golden["images"], golden["noise"]
    gains = [
        gain(images, noise, Sinkhorn(epsilon=e).pair(Batch(images), noise, generator(0)))
        for e in (100, 1, 0.02)
    ]
    assert gains[0] < 0.3
    assert gains == sorted(gains)
    assert gains[2] > 0.9


def test_noises_are_drawn_as_the_plan_of_pot_has_them():
    images, noise = photos(6, 4)
    cost = tensors.pairwise_cost(images.double(), noise.double())
    rest = cost - cost.mean(0) - cost.mean(1, keepdim=True) + cost.mean()
    mass = torch.full((6,), 1 / 6, dtype=torch.float64)
    plan = 6 * ot.sinkhorn(mass, mass, cost, reg=float(0.5 * rest.std(correction=0)))
    draws = 1000
    coupler, batch, g = Sinkhorn(epsilon=0.5, tolerance=1e-5), Batch(images), generator(0)
    seen = torch.zeros(6, 6, dtype=torch.float64)
    for _ in range(draws):
        pairs = coupler.pair(batch, noise, g)
        seen[pairs.data, pairs.noise] += 1 / draws
    assert bool(((seen - plan).abs() < 5 * (plan * (1 - plan) / draws).sqrt() + 1e-4).all())


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


@pytest.mark.parametrize("rounded", [False, True])
def test_pairs_do_not_depend_on_how_the_costs_are_cut(monkeypatch, rounded):
    images, noise = photos()
    found = []
    for rows in (512, 100, 17):
        monkeypatch.setattr(entropic, "MIN_ROWS", rows)
        monkeypatch.setattr(entropic, "BLOCK", {"cpu": 1, "cuda": 1})
        for memory in (0, 2):
            coupler = Sinkhorn(rounded=rounded, memory=memory)
            found.append(coupler.pair(Batch(images), noise, generator(0)).noise)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_threads_give_the_same_pairs():
    images, noise = photos(256)
    coupler = Sinkhorn(rounded=True)
    with ThreadPoolExecutor(4) as workers:
        jobs = [workers.submit(coupler.pair, Batch(images), noise, generator(0)) for _ in range(8)]
    alone = coupler.pair(Batch(images), noise, generator(0))
    assert all(torch.equal(job.result().noise, alone.noise) for job in jobs)


@pytest.mark.parametrize("epsilon", [0.02, 0.05, 1.0, 10.0])
def test_the_gap_is_a_bound_that_holds(epsilon):
    images, noise = photos(300)
    pairs = Sinkhorn(epsilon=epsilon, rounded=True).pair(Batch(images), noise, generator(0))
    cost = tensors.pairwise_cost(images.double(), noise.double())
    true = float(cost[pairs.data, pairs.noise].sum() / best_of(cost)) - 1
    assert pairs.noise.sort().values.tolist() == list(range(300))
    assert true - 1e-6 <= pairs.gap
    assert pairs.gap <= 1e-4


def test_drawn_pairs_have_no_gap():
    images, noise = photos(20)
    assert Sinkhorn().pair(Batch(images), noise, generator(0)).gap is None


def test_pairs_that_cost_nothing_have_no_bound():
    noise = photos(20)[1]
    pairs = Sinkhorn(cost="squared", rounded=True).pair(Batch(noise), noise, generator(0))
    assert pairs.noise.tolist() == list(range(20))
    assert pairs.gap in (None, 0.0)


@pytest.mark.parametrize("copies", [300, 150])
def test_equal_images_are_rounded_to_the_best_permutation(copies):
    images, noise = photos(300)
    images[:copies] = images[0]
    pairs = Sinkhorn(rounded=True).pair(Batch(images), noise, generator(0))
    assert pairs.noise.sort().values.tolist() == list(range(300))
    cost = tensors.pairwise_cost(images.double(), noise.double())
    assert float(cost[pairs.data, pairs.noise].sum()) == pytest.approx(float(best_of(cost)))
    assert pairs.gap < 0.01


def test_epsilon_is_relative_to_the_costs(golden):
    images, noise = golden["images"].double(), golden["noise"].double()
    plain, scaled, moved = (
        Sinkhorn(cost="squared").pair(Batch(a * images + b), a * noise + b, generator(0)).noise
        for a, b in ((1, 0), (1000, 0), (1, 3))
    )
    assert torch.equal(scaled, plain)
    assert torch.equal(moved, plain)


def test_costs_that_are_all_alike_give_any_noise():
    pairs = Sinkhorn().pair(Batch(torch.zeros(50, 2)), torch.ones(50, 2), generator(0))
    assert len(pairs.noise.unique()) > 20


def test_no_convergence_is_told_with_what_to_do(golden):
    with raises_code(DataError, Code.NOT_CONVERGED, "64", "epsilon"):
        Sinkhorn(epsilon=0.001, iterations=1).pair(
            Batch(golden["images"]), golden["noise"], generator(0)
        )


def test_a_plan_to_be_rounded_need_not_converge(golden):
    coupler = Sinkhorn(epsilon=0.001, iterations=1, rounded=True)
    pairs = coupler.pair(Batch(golden["images"]), golden["noise"], generator(0))
    assert pairs.noise.sort().values.tolist() == list(range(64))


def test_unlike_lengths_are_refused():
    with raises_code(DataError, Code.WRONG_LENGTH, "4 images", "got 3"):
        Sinkhorn().pair(Batch(torch.zeros(4, 2)), torch.ones(3, 2), generator(0))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epsilon", 0),
        ("tolerance", 0),
        ("tolerance", 1),
        ("iterations", 0),
        ("memory", -1),
    ],
)
def test_settings_out_of_range_are_refused(key, value):
    with raises_code(SettingError, Code.OUT_OF_RANGE, key, value):
        Sinkhorn(**{key: value})


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 100.0])
def test_the_entropy_is_that_of_the_plan(golden, epsilon):
    images, noise = golden["images"].double(), golden["noise"].double()
    coupler = Sinkhorn(epsilon=epsilon, tolerance=1e-4)

    found = coupler.pair(Batch(images), noise, generator(0)).entropy

    costs = entropic.Costs(images, noise)
    uniform = torch.full((64,), 1 / 64, dtype=torch.float64)
    cost = tensors.pairwise_cost(images, noise)
    plan = ot.sinkhorn(uniform, uniform, cost, costs.epsilon(epsilon), "sinkhorn_log", 100_000)
    entropy = float(torch.special.entr(plan).sum())
    assert found == pytest.approx(entropy / math.log(64) - 1, abs=1e-4)


def test_a_rounded_plan_is_a_permutation_and_has_no_entropy(golden):
    pairs = Sinkhorn(rounded=True).pair(Batch(golden["images"]), golden["noise"], generator(0))

    assert pairs.entropy is None
