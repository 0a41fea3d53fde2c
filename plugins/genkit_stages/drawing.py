"""Base of callbacks that draw samples from a denoiser in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import (
    Callback,
    Context,
    Denoiser,
    Design,
    Network,
    Schedule,
    Solver,
    Stages,
    Trained,
)
from genkit.latents import Derived, draws_of
from genkit.parts.precision import Precision
from genkit.sample import bind_solver, resolve_start, sample, supported_levels
from genkit.settings import setting
from genkit.start import require_start
from genkit.types import Batch, Start
from genkit_stages.size_checks import MOST_BATCH, sample_problems


def level_problems(
    network: Network, schedule: Schedule, solver: Solver, earlier: Stages
) -> Iterator[Problem]:
    """Yield a problem if a solver cannot use the noise levels of a schedule with a network."""
    if not isinstance(network, Denoiser):
        return
    parts = schedule, solver, network.preconditioner
    if any(any(part.check(earlier)) for part in parts):
        return  # they report their own mistakes
    if not schedule.bound:
        return  # an earlier stage fits its levels, which are checked in `bind`
    try:
        supported_levels(schedule, network.preconditioner, solver.stochastic)
    except DataError as error:
        yield Problem(("schedule",), str(error))
        return
    try:
        bind_solver(schedule, solver, network.preconditioner)
    except DataError as error:
        yield Problem(("solver",), str(error))


def start_problems(network: Network, schedule: Schedule, start: Start) -> Iterator[Problem]:
    """Yield a problem if trajectories of a network cannot use the chosen start."""
    if isinstance(network, Denoiser) and schedule.bound:
        try:
            require_start(start, schedule, network.preconditioner)
        except DataError as error:
            yield Problem(("start",), str(error), code=error.code)


@dataclass(frozen=True, kw_only=True)
class Drawing(Callback):
    """Draw samples with the same seeds and classes in every call."""

    count: int = setting(64, doc="number of samples", at_least=1)
    batch_size: int = setting(
        256, doc="number of samples drawn at a time", at_least=1, at_most=MOST_BATCH
    )
    schedule: Schedule = setting(doc="noise levels", use={"use": "edm"})
    solver: Solver = setting(doc="solver of the sampling ODE", use={"use": "heun"})
    precision: Precision = setting("float32", doc="precision of the network's arithmetic")

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if not isinstance(design.settings, Denoiser):
            kind = design.settings.output.name
            yield Problem((), f"requires a denoiser, got a {kind}", "remove the callback")
            return
        yield from sample_problems(design.spec, self.count, self.batch_size)
        if not self.schedule.bound:
            reason = "must not depend on a trained denoiser, got fitted noise levels"
            yield Problem(("schedule",), reason, 'write { use = "edm" }', Code.CONFLICT)
            return
        yield from level_problems(design.settings, self.schedule, self.solver, {})

    def draw(self, network: Trained, context: Context) -> Batch:
        """Return samples drawn from a network, on the CPU, neither clipped nor rounded.

        Raises:
            DataError: a sample is not finite.
        """
        seed, parts = context.seed("callback"), []
        start = resolve_start("auto", network.module, network.coupling, self.schedule)
        for first in range(0, self.count, self.batch_size):
            seeds = range(first, min(first + self.batch_size, self.count))
            draws = draws_of(
                Derived(), network.spec.shape, seeds, network.classes, context.device, seed
            )
            drawn = sample(
                network.module,
                draws,
                schedule=self.schedule,
                solver=self.solver,
                start=start,
                precision=self.precision,
            )
            parts.append(drawn.batch)
        return Batch.joined(parts)
