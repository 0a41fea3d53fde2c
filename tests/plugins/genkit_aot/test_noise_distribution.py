"""The noise levels for assigned noise against scipy's distribution functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

import genkit
from genkit.errors import Code

U = torch.tensor([1e-12, 1e-6, 0.01, 0.3, 0.5, 0.8, 0.95, 1 - 1e-6, 1 - 1e-12], dtype=torch.float64)


def coupled(**settings):
    return genkit.component("noise-distribution", "coupled", **settings)


@pytest.mark.parametrize("settings", [{}, {"p_mean": -0.8, "p_std": 1.8, "high_share": 0.4}])
def test_quantiles_are_those_of_the_mixture(settings) -> None:
    found = coupled(**settings)
    levels = found.quantile(U).numpy()
    normal = stats.norm(found.p_mean, found.p_std)
    bottom = found.p_mean + found.p_std
    uniform = stats.uniform(bottom, math.log(80.0) - bottom)
    share = found.high_share
    logs = np.log(levels)
    below = (1 - share) * normal.cdf(logs) + share * uniform.cdf(logs)
    above = (1 - share) * normal.sf(logs) + share * uniform.sf(logs)
    half = U.numpy() < 0.5
    np.testing.assert_allclose(np.where(half, below, above), np.where(half, U, 1 - U), rtol=1e-3)
    np.testing.assert_allclose(below, U.numpy(), rtol=0, atol=1e-12)


def test_a_fifth_more_lies_at_high_noise_than_edm_draws() -> None:
    u = (torch.arange(100_000).double() + 0.5) / 100_000
    edm = genkit.component("noise-distribution", "log-normal")
    bottom = math.exp(-1.2 + 1.2)
    high = (math.log(80.0) - math.log(5.0)) / math.log(80.0 / bottom)
    expected = 0.8 * float((edm.quantile(u) > 5).double().mean()) + 0.2 * high
    assert float((coupled().quantile(u) > 5).double().mean()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("sigma_max", [1.0, 0.2])
def test_a_range_without_room_is_refused(sigma_max: float) -> None:
    (problem,) = coupled(sigma_max=sigma_max).check({})
    assert (problem.code, problem.key) == (Code.OUT_OF_RANGE, ("sigma_max",))
