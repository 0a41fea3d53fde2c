"""Contract tests of schedules, solvers and latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import Latents, Schedule, Solver
from genkit.latents import draws_of
from genkit.random import PerSample
from genkit.testing.laws import LawBroken, require, require_pure
from genkit.types import Denoise, Draws, State


class ClosedForm(Denoise):
    """A closed-form denoiser that supports every noise level, to test solvers.

    For normal data of standard deviation 1: ``ClosedForm(lambda x, sigma: x / (1 + sigma**2))``.

    Args:
        formula: ``(x [B, *shape], sigma 0-d) -> D(x; sigma) [B, *shape]``.

    Attributes:
        evaluations: arguments ``(x, sigma, inner)`` of each call, where x is a copy.
        steps: number of calls of :meth:`churn`.
    """

    def __init__(self, formula: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.formula = formula
        self.evaluations: list[tuple[Tensor, Tensor, bool]] = []
        self.steps = 0

    def __call__(self, x: Tensor, sigma: Tensor, *, inner: bool = False) -> Tensor:
        self.evaluations.append((x.clone(), sigma, inner))
        return self.formula(x, sigma)

    def nearest(self, sigma: Tensor) -> Tensor:
        return sigma

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        self.steps += 1
        return amount


def check_evaluations(solver: Solver, denoise: ClosedForm, states: Sequence[State]) -> None:
    """Compare the denoiser calls of a solver with its states and its declarations.

    Args:
        solver: solver to check.
        denoise: denoiser that the solver called.
        states: all states of the trajectory.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    first = [(x, float(sigma)) for x, sigma, inner in denoise.evaluations if not inner]
    law = "inner-evaluations: the first evaluation of a step is at the yielded state, and all "
    law += "others are inner"
    same = len(first) == len(states) - 1 and all(
        sigma == float(state.sigma) and torch.equal(x, state.x)
        for (x, sigma), state in zip(first, states, strict=False)
    )
    levels = [(float(sigma), inner) for _, sigma, inner in denoise.evaluations]
    require(same, solver, law, f"(sigma, inner) of each evaluation: {levels}")
    law = "two-slopes: a solver with two_slopes has inner evaluations"
    inner = [sigma for sigma, inner in levels if inner]
    require(bool(inner) or not solver.two_slopes, solver, law, levels)
    law = "churns: denoise.churn is called once per step if churns is true, and otherwise never"
    expected = len(first) if solver.churns else 0
    require(denoise.steps == expected, solver, law, f"{denoise.steps} calls in {len(first)} steps")


def check_schedule(schedule: Schedule, others: Sequence[int] = (1, 2, 18)) -> None:
    """Check every law of a schedule, for its own and for other numbers of steps.

    Args:
        schedule: schedule to check; the result of its ``bind`` if it refers to a stage.
        others: additional numbers of steps; empty for a schedule with fixed noise levels.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    for steps in sorted({*others, schedule.steps}):
        sigmas = replace(schedule, steps=steps).sigmas()
        law = f"level-per-step: {steps} steps have {steps + 1} float64 noise levels"
        shape = sigmas.dtype == torch.float64 and sigmas.shape == (steps + 1,)
        require(shape, schedule, law, f"{sigmas.dtype} {list(sigmas.shape)}")
        levels = sigmas.tolist()
        require(bool(sigmas.isfinite().all()), schedule, "finite: noise levels are finite", levels)
        decreasing = bool((sigmas.diff() < 0).all())
        require(decreasing, schedule, "levels-fall: noise levels decrease strictly", levels)
        require(levels[-1] == 0, schedule, "ends-at-0: the last noise level is 0", levels)
        low, high = replace(schedule, steps=steps).sigma_range()
        law = "sigma-range: sigma_range contains the noise levels above 0"
        rounded = 1 + 1e-12  # powers and exponentials may not reproduce the end points exactly
        inside = 0 < low <= levels[-2] * rounded and levels[0] <= high * rounded
        require(inside, schedule, law, (low, high, levels))
    unbounded = schedule.within(0.0, math.inf).sigmas()
    law = "within-all: a schedule does not change for a network that supports every noise level"
    require(torch.equal(unbounded, schedule.sigmas()), schedule, law, unbounded.tolist())


def check_solver(solver: Solver) -> None:
    """Check every law of a solver.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    _check_range(solver)
    _check_trajectory(solver, torch.float64, 1e-9)
    _check_trajectory(solver, torch.float32, 1e-4)
    _check_gaussian(solver)
    _check_company(solver)


def _check_range(solver: Solver) -> None:
    """Call ``between`` twice; a solver that is undefined for the range may raise a DataError."""
    sigmas = torch.tensor([80.0, 4.0, 0.02, 0.0], dtype=torch.float64)
    law = "bound-once: between returns a Solver, and does not change a solver that it returned"
    try:
        bound = solver.between(0.02, 80.0, sigmas)
    except DataError:
        return
    require(isinstance(bound, Solver), solver, law, bound)
    again = bound.between(0.02, 80.0, sigmas)
    require(again == bound, solver, law, again)


def check_latents(latents: Latents, shape: tuple[int, ...] = (3, 8, 8)) -> None:
    """Check every law of a component that draws the random numbers of samples.

    Args:
        latents: component to check.
        shape: shape of an item, with at least 100 values.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    seeds, classes = [5, 0, 2**31, 7, 63], 10

    def drawn(
        which: list[int], classes: int = classes, dtype: torch.dtype = torch.float64
    ) -> tuple[Draws, list[Tensor]]:
        """Return the draws for some seeds, and the noise of two steps for states of a dtype."""
        try:
            draws = draws_of(latents, shape, which, classes, torch.device("cpu"), 3)
            like = draws.latents.to(dtype)
            return draws, [draws.randn_like(like), draws.randn_like(like)]
        except DataError as error:
            law = "draws: draw returns Draws as documented by Latents.draw"
            raise LawBroken(latents, law, error) from error

    with require_pure(latents):
        draws, noise = drawn(seeds)
    law = "float32: latents have dtype float32"
    require(draws.latents.dtype == torch.float32, latents, law, draws.latents.dtype)
    values = torch.stack([draws.latents.double(), *noise])
    moments = float(values.mean()), float(values.var())
    law = "standard-normal: latents and noise are N(0, 1)"
    require(
        abs(moments[0]) < 0.1 and abs(moments[1] - 1) < 0.1,
        latents,
        law,
        f"mean and variance {moments}",
    )
    first = values.flatten(0, 1).flatten(1)[:, 0]
    distinct = len(set(first.tolist())) == len(first)
    law = "no-shared-noise: no latent or noise sample is drawn twice"
    require(distinct, latents, law, first.tolist())
    law = "independence: latents and noise of the steps are independent"
    for dtype in (torch.float32, torch.float64):
        start, steps = drawn(seeds, dtype=dtype)
        streams = torch.stack([start.latents.double(), *(step.double() for step in steps)])
        # For 960 or more independent numbers, correlations are below 0.1.
        correlation = torch.corrcoef(streams.flatten(1)).fill_diagonal_(0).abs().max()
        require(bool(correlation < 0.3), latents, law, f"a correlation of {correlation:.2f}")
    drawn(seeds, 0)
    law = "company: the draws of a sample do not depend on the other samples of its batch"
    order = [3, 0, 4]
    part, part_noise = drawn([seeds[k] for k in order])
    for name, whole, other in (
        ("latents", draws.latents, part.latents),
        ("labels", draws.labels, part.labels),
        ("noise", torch.stack(noise, dim=1), torch.stack(part_noise, dim=1)),
    ):
        same = whole is not None and other is not None and torch.equal(whole[order], other)
        require(same, latents, law, f"different {name}")


def _noise(count: int, purpose: str) -> PerSample:
    return PerSample(0, ("laws of solvers", purpose), range(count))


def _check_trajectory(solver: Solver, dtype: torch.dtype, rounding: float) -> None:
    """Draw samples of data that is a single point, which D(x; sigma) always returns."""
    point = torch.tensor([0.5, -1.0, 0.25], dtype=dtype)
    sigmas = torch.tensor([80.0, 20.0, 4.0, 0.5, 0.02, 0.0], dtype=dtype)
    start = 80.0 * _noise(4, "start").draw((3,), dtype)
    denoise = ClosedForm(lambda x, _: point.expand_as(x).clone())

    def solve() -> tuple[list[State], list[Tensor]]:
        states, copies = [], []
        for state in solver.solve(denoise, start, sigmas, _noise(4, "churn").randn_like):
            states.append(state)
            copies.append(state.x.clone())
        return states, copies

    with require_pure(solver, start=start, sigmas=sigmas):
        states, copies = solve()

    reached = [float(state.sigma) for state in states]
    law = "state-per-level: the trajectory has a state at each noise level, the last at 0"
    require(reached == sigmas.tolist(), solver, law, reached)
    law = "first-state: the first state is the start"
    require(torch.equal(copies[0], start), solver, law, copies[0].tolist())
    for index, (state, x) in enumerate(zip(states, copies, strict=True)):
        same_kind = state.x.shape == start.shape and state.x.dtype == start.dtype
        law = "state-type: a state has the shape and dtype of the start"
        require(same_kind, solver, law, f"{state.x.dtype} {list(state.x.shape)} at {index}")
        law = "state-is-kept: a state is not changed after it was yielded"
        require(torch.equal(state.x, x), solver, law, f"state {index} was modified")
        last = index == len(states) - 1
        law = "state-denoised: denoised is None in the last state, and set in all others"
        require((state.denoised is None) == last, solver, law, f"state {index}: {state.denoised}")
    law = "levels-range: the denoiser is called with noise levels above 0, each a 0-d tensor"
    levels = [sigma for _, sigma, _ in denoise.evaluations]
    sound = all(sigma.ndim == 0 and float(sigma) > 0 for sigma in levels)
    require(sound, solver, law, [sigma.tolist() for sigma in levels])
    check_evaluations(solver, denoise, states)
    error = float((copies[-1] - point).abs().max())
    law = "single-point: if the data is a single point, the trajectory ends there"
    require(error <= rounding, solver, law, f"an error of {error:.3g}")
    again = solve()[1]
    same = all(torch.equal(a, b) for a, b in zip(copies, again, strict=True))
    law = "same-again: the same start and noise give the same states"
    require(same, solver, law, "different states on the second call")


def _check_gaussian(solver: Solver) -> None:
    """Draw samples of N(0, s^2), for which D(x; sigma) = s^2 / (s^2 + sigma^2) x."""
    s, count, rho = 0.5, 4096, 7
    ramp = torch.linspace(0, 1, 128, dtype=torch.float64)
    sigmas = (80.0 ** (1 / rho) + ramp * (0.002 ** (1 / rho) - 80.0 ** (1 / rho))) ** rho
    sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    start = 80.0 * _noise(1, "Gaussian").draw((count,), torch.float64)
    churn = _noise(1, "Gaussian churn")
    x = start
    denoise = ClosedForm(lambda x, sigma: x * (s**2 / (s**2 + sigma**2)))
    for state in solver.solve(denoise, start, sigmas, churn.randn_like):
        x = state.x
    ratio = float(x.std()) / s
    law = "gaussian: samples of Gaussian data have its standard deviation within 10 % (128 steps)"
    require(abs(ratio - 1) <= 0.1, solver, law, f"{ratio:.3f} times this deviation")


def _check_company(solver: Solver) -> None:
    """Draw samples of N(0, 1/4) in one batch, and from the same starts in smaller batches."""
    sigmas = torch.tensor([80.0, 20.0, 4.0, 1.0, 0.3, 0.1, 0.02, 0.0], dtype=torch.float64)
    starts = 80.0 * _noise(5, "start").draw((3,), torch.float64)

    def ends(indices: list[int]) -> Tensor:
        churn = PerSample(0, ("laws of solvers", "churn"), indices)
        x = starts[indices]
        denoise = ClosedForm(lambda x, sigma: x / (1 + 4 * sigma**2))
        for state in solver.solve(denoise, x, sigmas, churn.randn_like):
            x = state.x
        return x

    whole = ends([0, 1, 2, 3, 4])
    parted = torch.cat([ends([3, 0]), ends([4]), ends([1, 2])])
    error = float((parted - whole[[3, 0, 4, 1, 2]]).abs().max())
    # Samples of a solver that adapts its steps to the batch may differ by its tolerance.
    law = "company: a sample does not depend on the other samples of its batch"
    require(error <= 1e-3, solver, law, f"a difference of {error:.3g}")
