"""The reference solution: its error, its states, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.testing import ClosedForm
from genkit_edm.edm import EdmSchedule
from genkit_edm.flow import FlowSchedule
from genkit_edm.solvers.adaptive import Adaptive
from genkit_edm.solvers.heun import Heun
from raising import raises_code

SPREAD = 0.5


def gaussian(x: Tensor, sigma: Tensor) -> Tensor:
    """The exact denoiser of N(0, SPREAD^2) data."""
    return x * SPREAD**2 / (SPREAD**2 + sigma**2)


def solve(solver: Adaptive, sigmas: Tensor, x: Tensor, denoise=gaussian):
    return list(solver.solve(ClosedForm(denoise), x, sigmas, torch.randn_like))


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_states_keep_to_the_tolerance(method, tolerance: float) -> None:
    sigmas = EdmSchedule(steps=9).sigmas()
    x = torch.tensor([[80.0, -40.0], [3.0, 0.0]], dtype=torch.float64)
    solver = Adaptive(method=method, rtol=tolerance, atol=tolerance)
    states = solve(solver, sigmas, x)
    assert [state.sigma for state in states] == sigmas.tolist()
    assert torch.equal(states[0].x, x)
    for state in states[:-1]:
        exact = x * math.hypot(SPREAD, state.sigma) / math.hypot(SPREAD, 80)
        torch.testing.assert_close(state.x, exact, rtol=30 * tolerance, atol=30 * tolerance)
        level = torch.tensor(state.sigma, dtype=torch.float64)
        torch.testing.assert_close(state.denoised, gaussian(state.x, level))


@pytest.mark.parametrize("steps", [1, 2, 20])
def test_the_end_depends_on_no_schedule(steps: int) -> None:
    """A last level far above 0 is not left by one Euler step."""
    sigmas = FlowSchedule(steps=steps, sigma_max=80.0).sigmas()
    x = torch.full((1, 1), 80.0, dtype=torch.float64)
    states = solve(Adaptive(rtol=1e-9, atol=1e-9, sigma_end=1e-4), sigmas, x)
    exact = 80 * SPREAD / math.hypot(SPREAD, 80)
    assert float(states[-1].x) == pytest.approx(exact, abs=1e-7)
    assert [state.sigma for state in states] == sigmas.tolist()


def test_a_start_below_the_end_is_one_euler_step() -> None:
    sigmas = torch.tensor([0.001, 0.0], dtype=torch.float64)
    x = torch.ones(2, 1, dtype=torch.float64)
    states = solve(Adaptive(), sigmas, x)
    torch.testing.assert_close(states[-1].x, gaussian(x, sigmas[0]))


def test_other_solvers_converge_to_it() -> None:
    points = torch.tensor([[0.5, -1.0], [0.25, 0.75], [-1.0, 0.0]], dtype=torch.float64)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        distance = (x[:, None] - points).square().sum(-1)
        return torch.softmax(-distance / (2 * sigma**2), dim=1) @ points

    x = 80 * torch.tensor([[1.0, -0.3], [0.2, 0.8]], dtype=torch.float64)
    short = torch.tensor([80.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    exact = solve(Adaptive(rtol=1e-9, atol=1e-9), short, x, denoise)[2].x
    errors = []
    for steps in (40, 80):
        ramp = EdmSchedule(steps=steps, sigma_min=0.3).sigmas()
        found = list(Heun().solve(ClosedForm(denoise), x, ramp, torch.randn_like))[-2].x
        errors.append(float((found - exact).abs().max()))
    assert errors[1] < errors[0] / 3 < 2e-3


def test_the_states_keep_the_type_of_the_start() -> None:
    sigmas = EdmSchedule(steps=3).sigmas().float()
    states = solve(Adaptive(), sigmas, torch.ones(2, 3))
    assert {state.x.dtype for state in states} == {torch.float32}


def test_a_denoiser_that_is_not_finite_is_named() -> None:
    def broken(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = gaussian(x, sigma)
        return denoised.where(sigma > 1, torch.tensor(torch.nan, dtype=x.dtype))

    sigmas = EdmSchedule(steps=3).sigmas()
    with raises_code(DataError, Code.NOT_FINITE, "denoised sample 0"):
        solve(Adaptive(), sigmas, torch.ones(2, 1, dtype=torch.float64), broken)


def test_a_solution_without_end_is_an_error() -> None:
    # dx / d(-ln sigma) = x^2 grows beyond all bounds at ln(80 / sigma) = 1.
    sigmas = EdmSchedule(steps=3).sigmas()
    x = torch.ones(1, 1, dtype=torch.float64)
    with raises_code(DataError, Code.NOT_CONVERGED, "rtol"):
        solve(Adaptive(), sigmas, x, lambda x, sigma: x + x.square())
