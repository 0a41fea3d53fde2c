"""The search for noise levels, against closed forms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import energy_distance

from genkit.errors import Code, DataError
from genkit.random import generator
from genkit.testing.sampling import ClosedForm
from genkit_edm.edm import EdmSchedule
from genkit_edm.solvers.dpmpp import Dpmpp2m
from genkit_edm.solvers.heun import Euler, Heun
from genkit_stages.level_search import (
    FINAL_SAMPLES,
    Candidate,
    KnownLevels,
    Search,
    energy,
    grid,
    standardize,
)
from raising import raises_code

DEVIATIONS = torch.tensor([0.2, 1.0], dtype=torch.float64)


def gaussian(x, sigma):
    """D(x; sigma) of normal data with these standard deviations."""
    return x * DEVIATIONS**2 / (DEVIATIONS**2 + sigma**2)


def ends(solver, schedule, noise):
    sigmas = schedule.sigmas()
    *_, last = solver.solve(ClosedForm(gaussian), noise * sigmas[0], sigmas, torch.randn_like)
    return last.x


def error(solver, schedule, noise):
    """Mean distance to the ends of the exact trajectories, from 80 times the same noise."""
    exact = noise * 80 * DEVIATIONS / (DEVIATIONS**2 + 80**2).sqrt()
    return float((ends(solver, schedule, noise) - exact).square().sum(1).sqrt().mean())


@pytest.mark.parametrize("solver", [Euler(), Heun(), Dpmpp2m()])
@pytest.mark.parametrize("steps", [3, 5, 8])
def test_fitted_levels_of_normal_data_end_nearer_to_the_exact_flow(solver, steps):
    data = torch.randn((2000, 2), generator=generator(0, "data"), dtype=torch.float64) * DEVIATIONS
    noise = torch.randn(
        (FINAL_SAMPLES + 1000, 2), generator=generator(0, "noise"), dtype=torch.float64
    )
    own, others = standardize(noise[:FINAL_SAMPLES]), noise[FINAL_SAMPLES:]
    calls = []

    def draw(schedule, seeds):
        calls.append(len(seeds))
        return ends(solver, schedule, own[seeds.start : seeds.stop])

    found = Search(draw, data, steps).run(0.002, 80.0)
    assert found.samples == sum(calls) <= 2000
    assert found.energy <= found.usual
    usual = [EdmSchedule(steps=steps, rho=rho) for rho in (7.0, 90.0)]
    fitted = error(solver, KnownLevels.of(found.levels), others)
    assert fitted < min(error(solver, schedule, others) for schedule in usual)
    again = Search(draw, data, steps).run(0.002, 80.0)
    assert again == found


def test_the_energy_distance_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=50), rng.normal(1, 2, size=70)
    own = cdist(x[:, None], x[:, None]).sum()
    within = cdist(y[:, None], y[:, None]).mean()
    # scipy's counts pairs of a sample with itself, and has the term of the data.
    expected = energy_distance(x, y) ** 2 + within + own / 50**2 - own / (50 * 49)
    found = energy(torch.tensor(x)[:, None], torch.tensor(y)[:, None])
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_the_first_candidates_are_the_usual_levels(steps):
    for candidate, rho in zip(grid(0.002, 80.0), (7.0, 90.0), strict=False):
        expected = EdmSchedule(steps=steps, rho=rho).levels().tolist()
        assert candidate.levels(steps) == pytest.approx(expected, rel=1e-12)


def test_candidates_stay_in_the_range_and_decrease():
    for lowest, highest in ((0.002, 80.0), (0.5, 2.0)):
        found = grid(lowest, highest)
        found += [near for candidate in found for near in candidate.neighbors(lowest, highest)]
        for candidate in found:
            levels = candidate.levels(6)
            assert highest * 1.0001 > levels[0]
            assert levels[-1] > lowest * 0.9999
            assert all(a > b for a, b in pairwise(levels))


def test_candidates_that_cannot_be_drawn_are_left_out():
    def draw(schedule, seeds):
        if float(schedule.sigmas()[0]) > 70:
            raise DataError("infinite", Code.NOT_FINITE)
        return torch.zeros((len(seeds), 1))

    assert Search(draw, torch.zeros((4, 1)), 3).run(0.002, 80.0).levels[0] < 70

    def never(schedule, seeds):
        raise DataError("infinite", Code.NOT_FINITE)

    with raises_code(DataError, Code.NOT_FINITE):
        Search(never, torch.zeros((4, 1)), 3).run(0.002, 80.0)


def test_one_step_is_sigma_max_alone():
    assert Candidate(4.0, 0.1, 0.5).levels(1) == (4.0,)
