"""Paths: their derivatives against automatic differentiation, their ODE against EDM's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from genkit import component
from genkit.errors import DataError
from genkit_edm.euler import Euler
from genkit_edm.heun import Heun
from genkit_edm.path import SCALINGS, TIMES, Path
from genkit_edm.vp import VpTime

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


def levels_of(highest: float) -> Tensor:
    return torch.linspace(0.2, 1.0, 50, dtype=torch.float64) * highest


@pytest.mark.parametrize("low", [0.05, 0.12, 0.13, 0.14, 0.5])
@pytest.mark.parametrize("s_churn", [0.0, 10.0])
def test_a_range_without_a_vp_time_is_refused(low: float, s_churn: float) -> None:
    """It is refused exactly where the times of its levels, churned ones too, do not increase."""
    time = VpTime.between(low, 80.0)
    reached = 80.0 * (2**0.5 if s_churn else 1.0)
    defined = bool((time.time(levels_of(reached)).diff() > 0).all()) and bool(
        (time.sigma(torch.linspace(1e-3, 1, 99, dtype=torch.float64)).diff() > 0).all()
    )
    solver = Heun(path="vp", s_churn=s_churn)
    if defined:
        assert solver.between(low, 80.0).path_range == (low, 80.0)
    else:
        with pytest.raises(DataError) as refused:
            solver.between(low, 80.0)
        assert f"{low:g}" in str(refused.value)
        assert "80" in str(refused.value)


def test_both_answers_were_seen() -> None:
    assert Heun(path="vp").between(0.13, 80.0)
    for solver, low in ((Heun(path="vp"), 0.14), (Heun(path="vp", s_churn=1.0), 0.13)):
        with pytest.raises(DataError):
            solver.between(low, 80.0)
    # What the message advises is accepted.
    with pytest.raises(DataError, match=r"at most 0\.094"):
        Heun(path="vp", s_churn=1.0).between(0.5, 80.0)
    assert Heun(path="vp", s_churn=1.0).between(0.094, 80.0)
    # Noise is added below s_max alone, and does not lift the first level.
    assert Heun(path="vp", s_churn=1.0, s_max=50.0).between(0.13, 80.0)


def test_a_chosen_range_is_kept() -> None:
    solver = Euler(path="vp", path_range=(0.01, 100.0))
    assert solver.between(0.002, 80.0).path_range == (0.01, 100.0)
    assert Euler(path="ve").between(0.002, 80.0).path_range is None


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
