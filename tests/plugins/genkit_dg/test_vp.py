from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from torch.testing import assert_close

from genkit.parts.vp_sde import VpSde, vp_mean
from genkit.testing import check_component, check_noise_distribution
from genkit_dg.noise_distribution import DgImportance


def test_mean_and_std_are_those_of_the_reference(dg_golden):
    sigma = dg_golden["sigma"].double()
    assert_close(vp_mean(sigma).float(), dg_golden["vp_mean"], rtol=1e-6, atol=0)
    # The reference takes std from 1 - mean^2 in float32, which cancels at low noise.
    assert_close((sigma * vp_mean(sigma)).float(), dg_golden["vp_std"], rtol=1e-5, atol=2e-5)


def test_time_is_that_of_the_reference(dg_golden):
    time = VpSde().time(dg_golden["sigma"].double()).float()
    # The reference's float32 root cancels at low noise: at most 5e-7.
    assert_close(time, dg_golden["vp_time"], rtol=1e-6, atol=5e-7)


def test_time_inverts_sigma_in_float32():
    sigma = torch.logspace(-3, 2, 50)
    assert_close(VpSde().sigma(VpSde().time(sigma)), sigma, rtol=2e-5, atol=0)


def importance_sampled_time(u):
    return VpSde().time(DgImportance().quantile(u))


def integral(time):
    """Return B, the integral of beta from 0."""
    return 0.1 * time + 19.9 / 2 * time * time


def antiderivative(time):
    """Return the antiderivative of beta / std^2, in float64."""
    return math.log(math.expm1(integral(time)))


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_importance_sampled_time_is_the_root_of_the_formula(dtype, rtol):
    near_0 = np.geomspace(1e-6, 0.1, 80)
    u = torch.from_numpy(np.concatenate([near_0, np.linspace(0.1, 0.9, 80), 1 - near_0])).to(dtype)
    low, high = antiderivative(1e-5), antiderivative(1.0)
    wanted = [
        math.exp(
            brentq(
                lambda log_time, level=low + fraction * (high - low): (
                    antiderivative(math.exp(log_time)) - level
                ),
                *(math.log(5e-6), math.log(2.0)),
                xtol=1e-13,
            )
        )
        for fraction in u.tolist()
    ]
    time = importance_sampled_time(u)
    assert time.dtype == dtype
    wanted = torch.tensor(wanted, dtype=torch.float64)
    assert_close(time.double(), wanted, rtol=rtol, atol=0)


def test_importance_sampled_time_is_that_of_the_reference(dg_golden):
    u = dg_golden["uniform"].double()
    golden = dg_golden["importance_sampled_time"].double()
    # The reference evaluates the antiderivative as log(1 - exp(-B)) + B in float32. Its lower end
    # is off by 0.012, which moves all its times. Here the same end is reached by other fractions.
    # Only exp(-B) is rounded here: NumPy's own exp in float32 differs between processors.
    start = integral(1e-5)
    low_of_reference = math.log(1 - float(np.float32(math.exp(-start)))) + start
    low, high = antiderivative(1e-5), antiderivative(1.0)
    assert low_of_reference - low == pytest.approx(0.012, rel=0.05)
    moved = (low_of_reference - low + u * (high - low_of_reference)) / (high - low)
    error = (importance_sampled_time(moved) / golden - 1).abs()
    # The rest is the same rounding of exp(-B), to multiples of 2^-24, at the time itself.
    assert (error < 2**-23 / integral(golden) + 2e-6).all()


@pytest.mark.parametrize("u", [1e-6, 0.01, 0.3, 0.7, 1 - 1e-6])
def test_importance_sampled_time_is_the_quantile_of_its_density(u):
    def density_of_log_time(log_time: float) -> float:
        t = math.exp(log_time)
        return t * (0.1 + 19.9 * t) / -math.expm1(-(0.1 * t + 19.9 / 2 * t * t))

    start, end = math.log(1e-5), 0.0
    time = float(importance_sampled_time(torch.tensor([u], dtype=torch.float64)))
    part = quad(density_of_log_time, start, math.log(time))[0]
    assert part / quad(density_of_log_time, start, end)[0] == pytest.approx(u, rel=1e-6, abs=1e-9)


def test_importance_distribution_is_uniform_in_log_sigma():
    check_component(DgImportance)
    check_noise_distribution(DgImportance())
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    gaps = DgImportance().quantile(u).log().diff()
    assert_close(gaps, gaps[:1].expand(18))
    ends = DgImportance().quantile(torch.tensor([1e-12, 1 - 1e-12], dtype=torch.float64))
    assert_close(ends, torch.tensor([0.001, 152.17], dtype=torch.float64), rtol=1e-3, atol=0)
