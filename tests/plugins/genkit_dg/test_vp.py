from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch.testing import assert_close

from genkit.testing import check_component, check_sigma_distribution
from genkit_dg.sigma_distribution import DgImportance
from genkit_dg.vp import importance_sampled_time, vp_mean, vp_sigma, vp_std, vp_time


def test_mean_and_std_are_those_of_the_reference(dg_golden):
    sigma = dg_golden["sigma"].double()
    assert_close(vp_mean(sigma).float(), dg_golden["vp_mean"], rtol=1e-6, atol=0)
    # The reference takes std from 1 - mean^2 in float32, which cancels at low noise.
    assert_close(vp_std(sigma).float(), dg_golden["vp_std"], rtol=1e-5, atol=2e-5)


def test_time_is_that_of_the_reference(dg_golden):
    time = vp_time(dg_golden["sigma"].double()).float()
    # The reference's float32 root cancels at low noise: at most 5e-7.
    assert_close(time, dg_golden["vp_time"], rtol=1e-6, atol=5e-7)


def test_time_inverts_sigma_in_float32():
    sigma = torch.logspace(-3, 2, 50)
    assert_close(vp_sigma(vp_time(sigma)), sigma, rtol=2e-5, atol=0)


def test_importance_sampled_time_is_that_of_the_reference(dg_golden):
    time = importance_sampled_time(dg_golden["uniform"].double()).float()
    # Its lower end, log(exp(1e-6) - 1), carries a float32 error of 1 %, which scales all times.
    assert_close(time, dg_golden["importance_sampled_time"], rtol=0.03, atol=0)
    above = dg_golden["importance_sampled_time"] > 0.05
    assert_close(time[above], dg_golden["importance_sampled_time"][above], rtol=5e-3, atol=0)


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
    check_sigma_distribution(DgImportance())
    u = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    gaps = DgImportance().quantile(u).log().diff()
    assert_close(gaps, gaps[:1].expand(18))
    ends = DgImportance().quantile(torch.tensor([1e-12, 1 - 1e-12], dtype=torch.float64))
    assert_close(ends, torch.tensor([0.001, 152.17], dtype=torch.float64), rtol=1e-3, atol=0)
