"""Paths: their derivatives against automatic differentiation, their ODE against EDM's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genkit import component
from genkit.errors import Code, DataError, SettingError
from genkit_edm.solvers.heun import SCALINGS, TIMES, Euler, Heun
from genkit_edm.solvers.path import Path
from genkit_edm.vp import VpTime
from raising import raises_code

EDM = VpTime.between(0.002, 80.0)
"""Of EDM's own range: beta is negative at time 0."""

PATHS = {
    f"{name}-{scaling}": Path(time, SCALINGS[scaling])
    for name, time in {**TIMES, "vp": VpTime(), "vp-edm": EDM}.items()
    for scaling in SCALINGS
}

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
    time = path.time
    torch.testing.assert_close(time.sigma(time.time(SIGMA)), SIGMA, rtol=1e-9, atol=0)
    assert bool((time.time(SIGMA).diff() > 0).all())
    assert float(time.time(ZERO)) == 0
    assert float(path.scaling.scale(ZERO)) == 1


@ALL
def test_rates_are_the_derivatives(path: Path) -> None:
    rate = derivative(path.time.sigma, path.time.time(SIGMA))
    torch.testing.assert_close(path.time.rate(SIGMA), rate, rtol=1e-9, atol=0)
    scale_rate = derivative(path.scaling.scale, SIGMA)
    torch.testing.assert_close(path.scaling.scale_rate(SIGMA), scale_rate, rtol=1e-9, atol=1e-12)


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
    path, sigma = PATHS["vp-vp"], torch.tensor(2.0, dtype=torch.float64)
    x, denoised = torch.tensor([3.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    s = path.scaling.scale(sigma)
    beta = 0.1 + 19.9 * path.time.time(sigma)
    expected = -beta / 2 * (s * x + (s * denoised - s * x) / (1 - s**2))
    torch.testing.assert_close(path.velocity(x, sigma, denoised), expected)


def test_the_range_of_the_vp_sde_has_its_constants() -> None:
    own = component("schedule", "vp").sigma_range()
    found = VpTime.between(*own)
    assert (found.beta_d, found.beta_min) == pytest.approx((19.9, 0.1), rel=1e-9)


def test_a_negative_beta_keeps_time_0_at_level_0() -> None:
    assert EDM.beta_min < 0
    assert float(EDM.time(torch.tensor(0.002, dtype=torch.float64))) == pytest.approx(1e-3)
    assert float(EDM.time(torch.tensor(80.0, dtype=torch.float64))) == pytest.approx(1.0)


@pytest.mark.parametrize(("path", "scaling"), [("linear", "none"), ("vp", "vp"), ("flow", "flow")])
def test_a_path_has_its_own_scaling_unless_another_is_chosen(path, scaling) -> None:
    sigmas = torch.tensor([80.0, 0.002, 0.0], dtype=torch.float64)
    assert Euler(path=path).path_over(sigmas).scaling is SCALINGS[scaling]
    for other in SCALINGS:
        assert Euler(path=path, scaling=other).path_over(sigmas).scaling is SCALINGS[other]


def schedule(low: float, steps: int = 18) -> Tensor:
    return component("schedule", "edm", sigma_min=low, sigma_max=80.0, steps=steps).sigmas()


def has_times(edm_sampler, low: float, levels: Tensor) -> bool:
    """Whether B(t) rises from the earliest time on until it has passed every level.

    The two constants come from the tests' own linear equations; B is walked along a fine grid.
    """
    beta_d, beta_min = edm_sampler.betas(low, 80.0)
    times = torch.linspace(1e-3, 3.0, 300_001, dtype=torch.float64)
    integral = 0.5 * beta_d * times**2 + beta_min * times
    falls = (integral.diff() <= 0).nonzero()
    rising = integral[: int(falls[0]) + 1] if len(falls) else integral
    wanted = levels.square().log1p().max()
    # The range itself ends at time 1.
    return bool(rising[-1] >= wanted) and len(rising) > int((times < 1).sum())


CHURNS = {
    "none": {},
    "light": {"s_churn": 0.1},
    "strong": {"s_churn": 100.0},
    "strong, below 79": {"s_churn": 100.0, "s_max": 79.0},
    "strong, below 20": {"s_churn": 100.0, "s_max": 20.0},
}


@pytest.mark.parametrize(
    "low", [0.05, 0.0938, 0.09385, 0.0939, 0.094, 0.1, 0.12, 0.13, 0.132, 0.134, 0.14, 0.5]
)
@pytest.mark.parametrize("name", CHURNS)
@pytest.mark.parametrize("steps", [18, 100])
def test_a_range_without_a_vp_time_is_refused(edm_sampler, low, name, steps) -> None:
    """It is refused exactly where a level that is reached has no time."""
    churn, sigmas = CHURNS[name], schedule(low, steps)
    above = sigmas[:-1][sigmas[:-1] <= churn.get("s_max", 1e9)]
    lifted = above * (1 + min(churn.get("s_churn", 0) / steps, 2**0.5 - 1))
    reached = torch.cat([sigmas[:1], lifted])
    solver = Heun(path="vp", **churn)
    if has_times(edm_sampler, low, reached):
        assert solver.between(low, 80.0, sigmas).path_range == (low, 80.0)
    else:
        for call in (
            lambda: solver.between(low, 80.0, sigmas),
            lambda: solver.path_over(sigmas),  # not bound before
        ):
            with pytest.raises(DataError) as refused:
                call()
            assert f"from {low:g} to 80" in str(refused.value)
            # What the message advises is accepted.
            advised = float(str(refused.value).split("at most ")[1].split(",")[0])
            assert solver.between(advised, 80.0, schedule(advised, steps))


def test_a_chosen_range_is_kept() -> None:
    solver = Euler(path="vp", path_range=(0.01, 100.0))
    assert solver.between(0.002, 80.0, schedule(0.002)).path_range == (0.01, 100.0)
    assert Euler(path="ve").between(0.002, 80.0, schedule(0.002)).path_range is None


@pytest.mark.parametrize("path_range", [(0.0, 1.0), (1e200, 1e300), (1.0, float("inf"))])
def test_a_range_beyond_all_levels_is_refused(path_range) -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "path_range"):
        Heun(path="vp", path_range=path_range)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"path": "vp", "path_range": (2.0, 1.0)}, ("path_range",)),
        ({"path": "ve", "path_range": (1.0, 2.0)}, ("path_range",)),
    ],
)
def test_a_range_that_means_nothing_is_reported(settings, key) -> None:
    (problem,) = Heun(**settings).check({})
    assert problem.key == key
