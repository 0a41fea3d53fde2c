"""Closed forms of a linear coupling, against integration of its probability-flow ODE."""

import json
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from genkit.artifacts import Coupling, CouplingStatistics
from genkit.errors import Code, UsageError
from raising import raises_code

DEVIATIONS = (15.0, 6.0, 2.5, 1.0, 0.1)
CORRELATIONS = (0.8, 0.6, -0.5, 0.0, 1.0)


def statistics(deviations=DEVIATIONS, correlations=CORRELATIONS):
    covariances = tuple(s * r for s, r in zip(deviations, correlations, strict=True))
    return CouplingStatistics(8192, 16, deviations, covariances, 500.0, 0.01)


def denoised(x, sigma, s, c):
    """The mean of y given ``x = y + sigma n``, from their joint covariance by linear algebra."""
    joint = np.array([[s**2, c], [c, 1.0]])
    mixing = np.array([[1.0, 0.0], [1.0, sigma]])  # to (y, x)
    of_both = mixing @ joint @ mixing.T
    return of_both[0, 1] / of_both[1, 1] * x


@pytest.mark.parametrize("sigma_max", [80.0, 6.0, 1.0])
@pytest.mark.parametrize("corrections", [0, 1, 2])
def test_spread_of_samples_is_that_of_the_integrated_ode(sigma_max, corrections):
    found = statistics()

    ratios = found.spread_of_samples(sigma_max, corrections)

    for s, rho, ratio in zip(DEVIATIONS, CORRELATIONS, ratios, strict=True):

        def slope(sigma, x, s=s, c=s * rho):
            return (x - denoised(x, sigma, s, c)) / sigma

        start = sigma_max  # one standard deviation of the noise, since the flow is linear
        for _ in range(corrections):
            start = sigma_max + denoised(start, sigma_max, s, s * rho)
        last = 1e-9  # 0 itself divides by 0, and the slope there is bounded
        flow = solve_ivp(slope, (sigma_max, last), [start], rtol=1e-11, atol=1e-12, method="DOP853")
        assert ratio == pytest.approx(flow.y[0, -1] / s, rel=1e-6)


def test_spread_is_that_of_the_sum():
    found = statistics((2.0,), (0.5,)).spread(3.0)

    assert found == pytest.approx([math.sqrt(4 + 2 * 3 * 1 + 9)], rel=1e-12)


def test_independent_noise_is_off_in_second_order_alone():
    (ratio,) = statistics((15.0,), (0.0,)).spread_of_samples(80.0)

    assert ratio == pytest.approx(1 / math.sqrt(1 + (15 / 80) ** 2), rel=1e-12)


def test_frechet_distance_is_that_of_two_gaussians():
    found = statistics()

    ratios = np.array(found.spread_of_samples(10.0))
    s = np.diag(np.square(DEVIATIONS))
    samples = np.diag(np.square(DEVIATIONS * ratios))
    # Of diagonal covariances the root of the product is that of the entries.
    expected = np.trace(s + samples - 2 * np.sqrt(s * samples))
    assert found.frechet_of_start(10.0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("corrections", [0, 1, 2])
@pytest.mark.parametrize("tolerance", [0.01, 0.02, 0.1])
def test_lowest_sigma_max_is_where_a_ratio_leaves_the_tolerance_first(corrections, tolerance):
    found = statistics()

    lowest = found.lowest_sigma_max(corrections, tolerance=tolerance)

    def worst(sigma):
        ratios = np.array(found.spread_of_samples(sigma, corrections))
        return np.abs(ratios - 1).max()

    assert worst(lowest) == pytest.approx(tolerance, rel=1e-6)
    assert worst(0.999 * lowest) > tolerance
    assert all(worst(sigma) <= tolerance for sigma in lowest * np.geomspace(1.001, 1e4, 2000))


def test_data_that_does_not_vary_is_safe_everywhere():
    found = CouplingStatistics(256, 1, (), (), 0.0, 0.0)

    assert found.lowest_sigma_max() == 0
    assert found.frechet_of_start(80.0, 1) == 0
    assert found.share_from_noise == 0


def test_a_state_that_does_not_vary_gives_an_infinite_ratio():
    (ratio,) = statistics((2.0,), (-1.0,)).spread_of_samples(2.0)

    assert math.isinf(ratio)


def test_share_is_the_variance_of_the_linear_prediction():
    found = CouplingStatistics(256, 1, (3.0, 2.0), (1.0, -0.5), 20.0, 0.0)

    assert found.share_from_noise == pytest.approx((1 + 0.25) / 20)


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.inf, math.nan])
def test_a_noise_level_is_above_0(sigma):
    with raises_code(UsageError, Code.OUT_OF_RANGE):
        statistics().spread(sigma)


@pytest.mark.parametrize("tolerance", [0.0, 1.0, math.nan])
def test_a_tolerance_is_a_share(tolerance):
    with raises_code(UsageError, Code.OUT_OF_RANGE):
        statistics().lowest_sigma_max(1, tolerance=tolerance)


@pytest.mark.parametrize(
    "change",
    [{"deviations": (1.0,)}, {"deviations": (1.0, 0.0)}, {"variance": math.nan}],
    ids=["length", "zero", "nan"],
)
def test_statistics_are_consistent(change):
    with pytest.raises(ValueError, match="statistics of a coupling"):
        CouplingStatistics(
            **{
                "pairs": 256,
                "pools": 1,
                "deviations": (2.0, 1.0),
                "covariances": (0.5, 0.1),
                "variance": 5.0,
                "covariance": 0.1,
                **change,
            }
        )


def test_a_coupling_is_the_same_from_its_table():
    coupling = Coupling(
        True, True, ("labels",), independent=False, preserves_score=False, statistics=statistics()
    )

    assert Coupling.parsed(json.loads(json.dumps(coupling.table()))) == coupling


def test_a_table_holds_no_statistics_that_were_not_measured():
    coupling = Coupling(True, True, (), independent=True, preserves_score=True)

    assert "statistics" not in coupling.table()
    assert Coupling.parsed(coupling.table()) == coupling
