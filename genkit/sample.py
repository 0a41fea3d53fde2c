"""Sample a denoiser with a solver and guidance, and count network calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from genkit.artifacts.coupling import Coupling
from genkit.blame import fault, label_of, require_type
from genkit.corrections import Corrections
from genkit.errors import Code, DataError
from genkit.interfaces import BoundGuidance, Inputs, Preconditioner, Sampler, Schedule, Solver
from genkit.parts.precision import Precision, StatePrecision, network_precision, state_dtype
from genkit.start import CORRECTIONS, choose_start
from genkit.tensors import describe
from genkit.types import Batch, Denoise, Draws, ResolvedStart, SampleResult, Start, State


class GuidedDenoiser(Denoise):
    """A denoiser with guidance, in the form that a solver calls.

    Networks are evaluated on float32 copies of the states.

    Args:
        denoiser: ``(x, sigma, labels) -> D(x; sigma)``, in eval mode.
        labels: ``[B]`` class indices or None.
        guidance: bound guidance components, whose corrections of the denoised image are summed.
        precision: precision of all networks, including those of guidance.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        labels: Tensor | None = None,
        guidance: Sequence[BoundGuidance] = (),
        precision: Precision = "float32",
    ) -> None:
        self._denoiser = denoiser
        self._labels = labels
        self._corrections = Corrections(guidance)
        self._precision: Precision = precision
        self.nfe = 0

    @property
    def guidance_nfe(self) -> int:
        """Number of calls of guidance networks so far."""
        return self._corrections.evaluations

    @torch.no_grad()
    def __call__(self, x: Tensor, sigma: Tensor, *, inner: bool = False) -> Tensor:
        """Return the guided ``D(x; sigma)``; see :class:`~genkit.types.Denoise`."""
        self.nfe += 1
        narrow = x.to(torch.float32)
        # A fill value, since copying a tensor from the CPU would synchronize with the device.
        near = sigma if sigma.device == x.device else narrow.new_full((), float(sigma))
        level = near.to(narrow).flatten().expand(len(x))
        # The precision is set per call and not per trajectory: the code that consumes the states
        # runs between two calls, and must keep its own precision.
        with network_precision(x.device, self._precision):
            denoised = self._denoiser(narrow, level, self._labels)
            denoised = denoised.to(torch.promote_types(denoised.dtype, narrow.dtype))
            denoised = self._corrections.added(narrow, sigma, level, self._labels, denoised, inner)
        widened: Tensor = denoised.to(x.dtype)
        return widened

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        """Return the amount of noise after guidance; see :class:`~genkit.types.Denoise`."""
        return self._corrections.churn(x, amount)

    def nearest(self, sigma: Tensor) -> Tensor:
        """Return the nearest noise level that the preconditioner supports."""
        return sigma if self.preconditioner is None else self.preconditioner.round_sigma(sigma)

    @property
    def preconditioner(self) -> Preconditioner | None:
        """Preconditioner of the network; None if the network supports all noise levels."""
        return getattr(self._denoiser, "preconditioner", None)

    def levels(self, schedule: Schedule) -> Tensor:
        """Return the noise levels of a schedule, rounded by :func:`supported_levels`."""
        return supported_levels(schedule, self.preconditioner)


def supported_levels(
    schedule: Schedule, preconditioner: Preconditioner | None, keep_equal: bool = False
) -> Tensor:
    """Return the noise levels of a schedule, rounded to the nearest levels a network supports.

    Levels that round to the same value are merged, since a step between them has no effect unless
    it adds noise. If the network supports few levels, there may be fewer steps than in the
    schedule.

    Args:
        schedule: schedule of noise levels, which is clipped to the range of the network.
        preconditioner: preconditioner of the network; None if the network supports all levels.
        keep_equal: whether equal levels are kept, as for a stochastic solver.

    Returns:
        At most ``steps + 1`` float64 noise levels that decrease to 0. With ``keep_equal``, exactly
        ``steps + 1`` levels, some of which may be equal.

    Raises:
        DataError: all levels round to one value, or the levels do not decrease in the range of the
            network.
    """
    if preconditioner is not None:
        lowest, highest = preconditioner.sigma_range()
        schedule = schedule.within(lowest, highest)
    sigmas = require_type(schedule, "sigmas", schedule.sigmas(), Tensor)
    if sigmas.ndim != 1 or len(sigmas) < 2 or sigmas.dtype != torch.float64:
        reason = f"must return 2 or more noise levels in float64, got {describe(sigmas)}"
        raise fault(schedule, reason)
    if preconditioner is None:
        return sigmas
    rounded = preconditioner.round_sigma(sigmas[:-1].clamp(lowest, highest))
    falls = rounded.diff(prepend=rounded.new_full((1,), torch.inf)) < 0
    levels = torch.cat([rounded[falls], sigmas[-1:]])
    if len(levels) == 2 < len(sigmas):
        raise DataError(
            "the schedule must have two or more noise levels that differ for the network, got only "
            f"{levels[0]:.4g}; write levels from {lowest:.4g} to {highest:.4g}"
        )
    if bool((sigmas.diff() > 0).any()):
        raise fault(
            schedule,
            f"must have noise levels that decrease in the range of the network, {lowest:.4g} to "
            f"{highest:.4g}, got levels that increase; write another schedule, such as "
            '{ use = "edm" }',
            Code.OUT_OF_RANGE,
        )
    return torch.cat([rounded, sigmas[-1:]]) if keep_equal else levels


def bind_schedule(schedule: Schedule, inputs: Inputs, sampler: Sampler) -> Schedule:
    """Return a schedule bound to a denoiser; see :meth:`Schedule.bind`.

    Raises:
        DataError: the schedule cannot be bound, or the result has no noise levels.
    """
    bound = require_type(schedule, "bind", schedule.bind(inputs, sampler), Schedule)
    if not bound.bound:
        raise fault(schedule, "must bind to a schedule with noise levels, got one without")
    return bound


def bind_solver(
    schedule: Schedule, solver: Solver, preconditioner: Preconditioner | None
) -> tuple[Solver, Tensor]:
    """Return the solver for the noise levels of a schedule and a network, and these levels.

    Args:
        schedule: schedule of noise levels.
        solver: solver, not yet bound to a range of noise levels.
        preconditioner: preconditioner of the network; None if the network supports all levels.

    Returns:
        The bound solver, and at most ``steps + 1`` float64 noise levels; see
        :func:`supported_levels`.

    Raises:
        DataError: as for :func:`supported_levels`, or the solver is undefined for the range.
    """
    sigmas = supported_levels(schedule, preconditioner, solver.stochastic)
    if preconditioner is not None:
        schedule = schedule.within(*preconditioner.sigma_range())
    between = solver.between(*schedule.sigma_range(), sigmas)
    return require_type(solver, "between", between, Solver), sigmas


def resolve_start(
    start: Start, denoiser: nn.Module, coupling: Coupling | None, schedule: Schedule
) -> ResolvedStart:
    """Return the start for a denoiser and a schedule; see :func:`genkit.start.choose_start`.

    Args:
        start: start that the user chose.
        denoiser: trained denoiser.
        coupling: coupling that was used to train the denoiser; None if unknown.
        schedule: schedule whose first supported noise level is used.

    Raises:
        DataError: as for :func:`supported_levels`.
    """
    return choose_start(start, coupling, float(network_levels(denoiser, schedule)[0]))


def network_levels(denoiser: nn.Module, schedule: Schedule) -> Tensor:
    """Return the noise levels of a schedule that a network supports; calls `supported_levels`."""
    return supported_levels(schedule, getattr(denoiser, "preconditioner", None))


def denoise_fn(denoiser: nn.Module, labels: Tensor | None = None) -> GuidedDenoiser:
    """Return a denoiser without guidance for a solver."""
    return GuidedDenoiser(denoiser, labels)


def trajectory(
    denoise: GuidedDenoiser,
    draws: Draws,
    *,
    schedule: Schedule,
    solver: Solver,
    start: ResolvedStart = "noise",
    state_precision: StatePrecision = "float64",
) -> Iterator[State]:
    """Yield the states of a batch of samples, from pure noise to data.

    Args:
        denoise: denoiser with or without guidance.
        draws: latents, and the noise of stochastic solvers.
        schedule: noise levels, which are rounded to those that the network supports.
        solver: solver of the sampling ODE.
        start: state at the first noise level; see :mod:`genkit.start`. Each correction calls the
            denoiser once.
        state_precision: precision of the states; the precision of networks is set in ``denoise``.

    Raises:
        DataError: as for :func:`bind_solver`.
    """
    device = draws.latents.device
    dtype = state_dtype(device, state_precision)
    solver, levels = bind_solver(schedule, solver, denoise.preconditioner)
    sigmas = levels.to(dtype)  # on the CPU: a step reads them without synchronization
    x = draws.latents.to(dtype) * sigmas[0]
    noise = x
    for _ in range(CORRECTIONS[start]):
        x = noise + denoise(x, sigmas[0], inner=True)
    yield from solver.solve(denoise, x, sigmas, draws.randn_like)


def sample(
    denoiser: nn.Module,
    draws: Draws,
    *,
    schedule: Schedule,
    solver: Solver,
    start: ResolvedStart = "noise",
    guidance: Sequence[BoundGuidance] = (),
    precision: Precision = "float32",
    state_precision: StatePrecision = "float64",
    observe: Callable[[State], None] = lambda _: None,
) -> SampleResult:
    """Draw samples.

    Args:
        denoiser: trained denoiser, in eval mode, on the device of the draws.
        draws: latents, classes and noise.
        schedule: noise levels.
        solver: solver of the sampling ODE.
        start: state at the first noise level, as for :func:`trajectory`.
        guidance: bound guidance components.
        precision: precision of all networks, including those of guidance.
        state_precision: precision of the states.
        observe: function that is called with each state, which it must not change.

    Raises:
        DataError: as for :func:`trajectory`, or a sample is not finite. On a CPU this is checked
            after each step, and on other devices at the end, to avoid synchronization.
    """
    denoise = GuidedDenoiser(denoiser, draws.labels, guidance, precision)
    states = trajectory(
        denoise,
        draws,
        schedule=schedule,
        solver=solver,
        start=start,
        state_precision=state_precision,
    )
    last: deque[State] = deque(maxlen=1)  # keeps one state in memory
    for state in _finite(states, solver, guidance):
        observe(state)
        last.append(state)
    if not last:
        raise fault(solver, "must yield a state for each noise level, got none")
    x = last[0].x.cpu()
    labels = None if draws.labels is None else draws.labels.cpu()
    return SampleResult(Batch(x, labels=labels), denoise.nfe, denoise.guidance_nfe)


def _finite(
    states: Iterable[State], solver: Solver, guidance: Sequence[BoundGuidance]
) -> Iterator[State]:
    """Yield states unchanged; raise DataError with the first step whose samples are not finite."""
    waiting: list[tuple[str, Tensor]] = []
    for step, state in enumerate(states, 1):
        place = f"in step {step}, at noise level {state.sigma:.4g}"
        values = state.x if state.denoised is None else state.denoised
        # Networks and files have float32, in which a finite float64 state can be infinite.
        waiting.append((place, values.flatten(1).float().isfinite().all(dim=1)))
        if values.device.type == "cpu":
            _require_finite(waiting, solver, guidance)
            waiting.clear()
        yield state
    _require_finite(waiting, solver, guidance)


def _require_finite(
    seen: Sequence[tuple[str, Tensor]], solver: Solver, guidance: Sequence[BoundGuidance]
) -> None:
    """Raise DataError with the first place where a sample is not finite."""
    for place, finite in seen:
        if bool(finite.all()):
            continue
        sample = finite.tolist().index(False)
        parts = ["the denoiser", label_of(solver)]
        for guide in guidance:
            part = guide.component or guide
            weights = ((name, getattr(part, name, None)) for name in ("weight", "second_weight"))
            shown = ", ".join(f"{name} = {value:g}" for name, value in weights if value is not None)
            parts.append(label_of(part) + (f" ({shown})" if shown else ""))
        raise DataError(
            f"samples must be finite, got NaN or infinity in sample {sample} of {len(finite)} "
            f"{place}; check {', '.join(parts[:-1])} and {parts[-1]}",
            Code.NOT_FINITE,
        )
