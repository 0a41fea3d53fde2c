from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from genkit.errors import Code, SettingError
from genkit.interfaces import Preconditioned, Solver
from genkit.sample import denoise_fn
from genkit.testing import ClosedForm, check_evaluations
from genkit.types import Denoise, State
from genkit_edm.edm import EdmSchedule
from genkit_edm.iddpm import IddpmPreconditioner, iddpm_levels
from genkit_edm.solvers.adaptive import Adaptive
from genkit_edm.solvers.dpmpp import Dpmpp2m, Dpmpp2s
from genkit_edm.solvers.heun import ChurningSolver, Euler, Heun
from raising import raises_code

PATHS = ("linear", "ve", "vp", "flow")

SPREAD = 0.5
"""Standard deviation of the Gaussian data of the closed-form ODE."""


def gaussian() -> ClosedForm:
    """Return the exact denoiser of N(0, SPREAD^2) data."""
    return ClosedForm(lambda x, sigma: x * SPREAD**2 / (SPREAD**2 + sigma**2))


def no_noise(x: Tensor) -> Tensor:
    raise AssertionError("a deterministic solver asked for noise")


def run(solver: Solver, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like=no_noise):
    return list(solver.solve(denoise, x, sigmas, randn_like))


@pytest.mark.parametrize(
    ("solver", "order"),
    [
        *((Euler(path=path), 1) for path in PATHS),
        *((Heun(path=path), 2) for path in PATHS),
        (Heun(alpha=0.5), 2),
        (Heun(alpha=2 / 3), 2),
        (Heun(alpha=0.5, path="flow"), 2),
        (Dpmpp2m(), 2),
        (Dpmpp2s(), 2),
    ],
    ids=repr,
)
def test_order_of_convergence(solver: Solver, order: int) -> None:
    # dx/dsigma = x sigma / (SPREAD^2 + sigma^2), so x is proportional to sqrt(SPREAD^2 + sigma^2).
    # A last level near 0 keeps the final Euler step, which is of first order, out of sight.
    high, low = 5.0, 1e-6
    x = torch.ones(1, 1, dtype=torch.float64)
    exact = SPREAD / math.hypot(SPREAD, high)
    errors = []
    for steps in (64, 128, 256):
        sigmas = EdmSchedule(steps=steps, sigma_max=high, sigma_min=low, rho=2.0).sigmas()
        final = run(solver, gaussian(), x, sigmas)[-1]
        errors.append(abs(float(final.x) - exact))
    for coarse, fine in pairwise(errors):
        # On this problem the midpoint gains an order.
        assert order - 0.15 < math.log2(coarse / fine) < order + 1.15


@pytest.mark.parametrize("steps", [1, 2, 18])
def test_number_of_evaluations(steps: int) -> None:
    sigmas = EdmSchedule(steps=steps).sigmas()
    x = torch.ones(2, 3, dtype=torch.float64)
    for solver, expected in (
        (Heun(), 2 * steps - 1),
        (Heun(alpha=0.5), 2 * steps - 1),
        (Euler(), steps),
        (Dpmpp2m(), steps),
        (Dpmpp2s(), 2 * steps - 1),
    ):
        denoise = gaussian()
        run(solver, denoise, x, sigmas)
        assert len(denoise.evaluations) == expected


@pytest.mark.parametrize("solver", [Heun(), Euler(path="vp"), Dpmpp2m(), Dpmpp2s()])
def test_states_are_the_trajectory(solver: Solver) -> None:
    sigmas = EdmSchedule(steps=4).sigmas()
    x = torch.full((2, 3), 80.0, dtype=torch.float64)
    states = run(solver, gaussian(), x, sigmas)
    assert [s.sigma for s in states] == sigmas.tolist()
    torch.testing.assert_close(states[0].x, x)
    for state in states[:-1]:
        expected = gaussian()(state.x, torch.tensor(state.sigma, dtype=torch.float64))
        torch.testing.assert_close(state.denoised, expected)
    assert isinstance(states[-1], State)
    assert states[-1].denoised is None


@pytest.mark.parametrize(
    "solver",
    [
        Heun(s_churn=4.0),
        Euler(s_churn=4.0),
        Heun(s_churn=4.0, alpha=0.5),
        Euler(s_churn=4.0, path="vp"),
    ],
)
def test_state_is_lifted_to_the_noise_level_that_the_denoiser_sees(solver: ChurningSolver) -> None:
    sigmas = EdmSchedule(steps=16).sigmas()
    generator = torch.Generator().manual_seed(0)
    x = 80 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    states = run(
        solver,
        gaussian(),
        x,
        sigmas,
        lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype),
    )
    for sigma, state in zip(sigmas[:-1].tolist(), states, strict=False):
        assert state.sigma == pytest.approx(sigma * 1.25)
    # The first state is exactly distributed: the solver's own error has not entered yet.
    assert float(states[0].x.std()) == pytest.approx(100.0, rel=0.02)


def test_churn_at_most_doubles_the_variance() -> None:
    sigma = torch.tensor(2.0, dtype=torch.float64)
    x = torch.zeros(3, 2, dtype=torch.float64)
    lifted, sigma_hat = Heun(s_churn=1e6).churn(gaussian(), x, sigma, 10, torch.ones_like)
    assert float(sigma_hat) ** 2 == pytest.approx(8.0)
    torch.testing.assert_close(lifted, torch.full_like(x, 2.0))


@pytest.mark.parametrize(
    ("sigma", "lifted"), [(0.04, False), (0.05, True), (50.0, True), (51.0, False)]
)
def test_churn_keeps_to_its_range(sigma: float, lifted: bool) -> None:
    level = torch.tensor(sigma, dtype=torch.float64)
    x = torch.zeros(1, 1, dtype=torch.float64)
    solver = Heun(s_churn=20.0, s_min=0.05, s_max=50.0)
    sigma_hat = solver.churn(gaussian(), x, level, 18, torch.ones_like)[1]
    assert (float(sigma_hat) > sigma) is lifted


def test_an_infinite_s_max_is_any_level() -> None:
    level = torch.tensor(1e6, dtype=torch.float64)
    x = torch.zeros(1, 1, dtype=torch.float64)
    for solver in (Heun(s_churn=20.0), Heun(s_churn=20.0, s_max=math.inf)):
        assert float(solver.churn(gaussian(), x, level, 18, torch.ones_like)[1]) > level
    assert list(Heun(s_min=2.0, s_max=math.inf).check({})) == []
    for value in (math.nan, -math.inf):
        with raises_code(SettingError, Code.OUT_OF_RANGE, "s_max"):
            Heun(s_max=value)


def test_noise_is_drawn_in_every_step_wherever_it_is_added() -> None:
    """As in the reference, the noise of a step does not depend on s_min and s_max."""
    sigmas = EdmSchedule(steps=7).sigmas()
    for solver, count in ((Heun(s_churn=4.0, s_min=1.0, s_max=10.0), 7), (Heun(s_max=1.0), 0)):
        drawn = []
        run(
            solver,
            gaussian(),
            torch.ones(1, 2, dtype=torch.float64),
            sigmas,
            lambda x, drawn=drawn: drawn.append(1) or torch.zeros_like(x),
        )
        assert len(drawn) == count


def test_an_empty_churn_range_is_reported() -> None:
    (problem,) = Heun(s_min=2.0, s_max=1.0).check({})
    assert problem.key == ("s_min",)
    assert list(Heun(s_min=2.0).check({})) == []


@pytest.mark.parametrize("setting", ["s_churn", "s_min", "s_max", "s_noise"])
def test_negative_settings_are_refused(setting: str) -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, setting):
        Euler(**{setting: -1.0})


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_the_second_slope_lies_within_the_step(alpha: float) -> None:
    with raises_code(SettingError, Code.OUT_OF_RANGE, "alpha"):
        Heun(alpha=alpha)


@pytest.mark.parametrize("solver", [Heun(s_churn=4.0), Euler(s_churn=4.0, path="ve")])
def test_churn_lifts_to_a_level_that_the_network_knows(solver: ChurningSolver) -> None:
    """As the reference rounds: to the nearest entry of the table of improved DDPM."""
    network = Preconditioned(nn.Identity(), IddpmPreconditioner())
    denoise = denoise_fn(network)
    schedule = EdmSchedule(steps=16)
    x = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    network.forward = lambda x, sigma, labels: x / (1 + sigma.square())[:, None, None, None]
    states = run(solver, denoise, x, denoise.levels(schedule), torch.ones_like)
    table = iddpm_levels()
    for state, sigma in zip(states[:-1], denoise.levels(schedule), strict=False):
        assert state.sigma == table[(table - 1.25 * sigma).abs().argmin()]
    # Zeros became noise of exactly the variance that is missing.
    first = float(denoise.levels(schedule)[0])
    assert float(states[0].x.mean()) == pytest.approx(math.sqrt(states[0].sigma ** 2 - first**2))


class Doubled:
    """A wrapper as a third party writes it: it changes what a denoiser returns, and no more."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise

    def __call__(self, x: Tensor, sigma: Tensor, *, inner: bool = False) -> Tensor:
        return 2 * self._denoise(x, sigma, inner=inner)

    def nearest(self, sigma: Tensor) -> Tensor:
        return self._denoise.nearest(sigma)

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        return self._denoise.churn(x, amount)


def test_a_wrapped_denoiser_keeps_the_levels_that_its_network_knows() -> None:
    network = Preconditioned(nn.Identity(), IddpmPreconditioner())
    network.forward = lambda x, sigma, labels: x / 4
    denoise, x = denoise_fn(network), torch.ones(2, 3, dtype=torch.float64)
    levels = denoise.levels(EdmSchedule(steps=16))
    states = run(Heun(s_churn=4.0), Doubled(denoise), x, levels, torch.ones_like)
    assert len(states) == len(levels)
    assert {state.sigma for state in states[:-1]} <= set(iddpm_levels().tolist())


def test_a_denoiser_that_names_no_nearest_level_is_refused_where_levels_are_chosen() -> None:
    class Bare:
        def __call__(self, x: Tensor, sigma: Tensor, *, inner: bool = False) -> Tensor:
            return x / (1 + sigma**2)

        def churn(self, x: Tensor, amount: float) -> float:
            return amount

    denoise = Bare()
    sigmas, x = EdmSchedule(steps=4).sigmas(), torch.ones(2, 3, dtype=torch.float64)
    with pytest.raises(AttributeError, match="nearest"):
        run(Heun(s_churn=4.0), denoise, x, sigmas, torch.ones_like)


@pytest.mark.parametrize(
    "solver",
    [
        *(Heun(path=path, s_churn=churn) for path in PATHS for churn in (0.0, 4.0)),
        Heun(alpha=0.5, s_churn=4.0),
        Euler(s_churn=4.0),
        Adaptive(method="DOP853", sigma_end=1e-4),
    ],
    ids=repr,
)
def test_first_and_inner_evaluations_are_told_apart(solver: Solver) -> None:
    denoise = gaussian()
    x = torch.full((2, 3), 80.0, dtype=torch.float64)
    states = run(solver, denoise, x, EdmSchedule(steps=5).sigmas(), torch.ones_like)
    check_evaluations(solver, denoise, states)


class Asking(ClosedForm):
    """A denoiser whose guidance asks for noise for the second item alone."""

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        return torch.tensor([amount, 4.0, amount])


@pytest.mark.parametrize("path", PATHS)
def test_noise_is_added_to_the_items_for_which_it_is_asked(path: str) -> None:
    def ends(denoise: Denoise, solver: Heun) -> Tensor:
        x = 80 * torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)
        schedule = EdmSchedule(steps=9)
        solver = solver.between(*schedule.sigma_range(), schedule.sigmas())
        return run(solver, denoise, x, schedule.sigmas(), torch.ones_like)[-1].x

    formula = lambda x, sigma: x / (1 + sigma**2)  # noqa: E731
    found = ends(Asking(formula), Heun(path=path))
    plain = ends(ClosedForm(formula), Heun(path=path))
    churned = ends(ClosedForm(formula), Heun(path=path, s_churn=4.0))
    assert_close(found, torch.stack([plain[0], churned[1], plain[2]]), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(plain[1], churned[1], rtol=1e-3)


def test_a_lift_that_is_rounded_away_adds_nothing_in_float32() -> None:
    denoise = denoise_fn(Preconditioned(nn.Identity(), IddpmPreconditioner()))
    x = torch.zeros(1, 1)
    for level in denoise.levels(EdmSchedule(steps=40))[:-1].float():
        lifted, _ = Heun(s_churn=1e-3).churn(denoise, x, level, 40, torch.ones_like)
        assert float(lifted) == pytest.approx(0, abs=1e-3 * float(level))


@pytest.mark.parametrize("path", PATHS)
def test_churn_gives_every_path_the_same_variance(path: str) -> None:
    """Data of no spread leaves nothing but the noise, whose variance each level names."""
    sigmas = EdmSchedule(steps=64, sigma_min=0.5, sigma_max=10.0).sigmas()
    path_range = (0.01, 20.0) if path == "vp" else None  # path vp has no time for so narrow a range
    generator = torch.Generator().manual_seed(0)
    x = 10 * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    states = run(
        Heun(s_churn=8.0, path=path, path_range=path_range),
        ClosedForm(lambda x, sigma: torch.zeros_like(x)),
        x,
        sigmas,
        lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype),
    )
    for state in states[:-1]:
        assert float(state.x.std()) == pytest.approx(state.sigma, rel=0.03)
