"""Paths: their derivatives against automatic differentiation, their ODE against EDM's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genkit_edm.path import PATHS, Path

SIGMA = torch.tensor([1e-3, 0.02, 0.5, 1.0, 7.0, 80.0], dtype=torch.float64)
ZERO = torch.zeros((), dtype=torch.float64)
ALL = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """By automatic differentiation, elementwise."""
    at = at.clone().requires_grad_()
    (found,) = torch.autograd.grad((function(at) + 0 * at).sum(), at)
    return found


@ALL
def test_time_and_level_are_inverse(path: Path) -> None:
    torch.testing.assert_close(path.sigma(path.time(SIGMA)), SIGMA, rtol=1e-9, atol=0)
    assert bool((path.time(SIGMA).diff() > 0).all())
    assert float(path.time(ZERO)) == 0
    assert float(path.scale(ZERO)) == 1


@ALL
def test_rates_are_the_derivatives(path: Path) -> None:
    rate = derivative(path.sigma, path.time(SIGMA))
    torch.testing.assert_close(path.rate(SIGMA), rate, rtol=1e-9, atol=0)
    scale_rate = derivative(path.scale, SIGMA)
    torch.testing.assert_close(path.scale_rate(SIGMA), scale_rate, rtol=1e-9, atol=1e-12)


@ALL
def test_a_small_step_follows_the_ode(path: Path) -> None:
    x = torch.tensor([3.0, -1.0], dtype=torch.float64)
    denoised = torch.tensor([0.5, 0.25], dtype=torch.float64)
    for sigma in SIGMA[1:]:
        following = sigma * (1 - 1e-7)
        velocity = path.velocity(x, sigma, denoised)
        found = (path.step(x, sigma, following, velocity) - x) / (following - sigma)
        torch.testing.assert_close(found, (x - denoised) / sigma, rtol=1e-5, atol=1e-5)


def test_the_vp_path_is_straight_in_time() -> None:
    """Song et al.'s dy/dt = -beta/2 (y + score), where the score is (s D - y) / (1 - s^2)."""
    path, sigma = PATHS["vp"], torch.tensor(2.0, dtype=torch.float64)
    x, denoised = torch.tensor([3.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    s = path.scale(sigma)
    beta = 0.1 + 19.9 * path.time(sigma)
    expected = -beta / 2 * (s * x + (s * denoised - s * x) / (1 - s**2))
    torch.testing.assert_close(path.velocity(x, sigma, denoised), expected)
