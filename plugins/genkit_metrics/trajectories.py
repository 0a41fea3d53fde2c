"""Base of the metrics of the sampling ODE, which is solved from the same noise for all of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genkit.artifacts.scores import SAMPLED
from genkit.errors import DataError, InterruptedRun, Problem
from genkit.interfaces import Context, Metric, Sampler, Schedule, Solver, Stages, Subject
from genkit.latents import Derived
from genkit.sample import bind_schedule, bind_solver, denoise_fn, resolve_start, trajectory
from genkit.settings import setting
from genkit.start import START_DOC, sampling_warnings
from genkit.tensors import require_finite
from genkit.types import Curve, Measurement, ResolvedStart, Start, State

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class TrajectoryMetric(Metric):
    """A score of the trajectories along which a denoiser turns noise into data."""

    requires_denoiser = True
    higher_is_better = False
    accepts_statistics = True

    count: int = setting(256, doc="number of trajectories", at_least=1)
    solver: Solver = setting(doc="deterministic solver of the ODE", use={"use": "heun"})
    schedule: Schedule = setting(
        doc="noise levels of the many-step solution", use={"use": "edm", "steps": 64}
    )
    start: Start = setting("auto", doc=START_DOC)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.solver.stochastic:
            yield Problem(
                ("solver",), "must be deterministic, got one that adds noise", "leave s_churn out"
            )
        elif self.schedule.bound and not any(
            part for held in (self.schedule, self.solver) for part in held.check(earlier)
        ):
            try:
                bind_solver(self.schedule, self.solver, None)
            except DataError as error:
                yield Problem(("solver",), str(error))

    def measure(self, subject: Subject, context: Context) -> Measurement:
        sampler = Sampler(subject.denoiser, subject.coupling, self.solver, self.start)
        schedule = bind_schedule(self.schedule, context, sampler)
        for warning in sampling_warnings(self.start, subject.coupling, self.solver):
            context.warn(warning)
        found = replace(self, schedule=schedule).measured(subject, context)
        if self.schedule.bound:
            return found
        # The settings of such a schedule name a stage alone.
        levels = ", ".join(f"{level:.6g}" for level in schedule.sigmas().tolist())
        return replace(found, facts={**found.facts, "levels": levels})

    @abstractmethod
    def measured(self, subject: Subject, context: Context) -> Measurement:
        """Return scores and curves, where the schedule has its noise levels; see ``measure``."""

    def start_of(self, subject: Subject) -> ResolvedStart:
        """Return where the trajectories start."""
        return resolve_start(self.start, subject.denoiser, subject.coupling, self.schedule)

    def facts(self, subject: Subject) -> dict[str, str]:
        """Return what the scores depend on besides the settings of the metric."""
        return {f"{SAMPLED}start": self.start_of(subject)}

    def starts(self) -> list[range]:
        """Return the indices of the trajectories that are solved at a time."""
        return [
            range(start, min(start + BATCH, self.count)) for start in range(0, self.count, BATCH)
        ]

    def parts(self, context: Context, solve: Callable[[range], Tensor]) -> list[Tensor]:
        """Return the result for each batch of trajectories, in order.

        Collective: the ranks share the batches, and all have every result.

        Args:
            context: context of the stage that measures.
            solve: returns a tensor on the CPU for the trajectories of some indices.
        """
        found: list[Tensor] = []
        for indices in context.world.padded_shard(self.starts()):
            if context.stop_requested():
                raise InterruptedRun(f"{len(found) * BATCH} of {self.count} trajectories")
            found += context.world.all_gather(None if indices is None else solve(indices))
        return found

    def solve(
        self, subject: Subject, context: Context, indices: range, schedule: Schedule
    ) -> Iterator[State]:
        """Yield the states of some trajectories.

        Trajectory k starts from the same noise under every schedule and in every such metric, with
        the label of sample k (counted around) where samples have labels.
        """
        samples = subject.samples
        labels = None
        if samples.labels is not None:
            labels = samples.labels[torch.tensor(indices) % len(samples)].to(context.device)
        seed = context.generator("trajectories").initial_seed()
        yield from trajectory(
            denoise_fn(subject.denoiser, labels),
            Derived().draw(samples.data.shape[1:], indices, 0, context.device, seed),
            schedule=schedule,
            solver=self.solver,
            start=self.start_of(subject),
        )


def curve_over(
    values: Tensor,
    what: str,
    x: Sequence[float],
    x_label: str,
    y_label: str,
    *,
    log: bool = True,
) -> Curve:
    """Return the curve of a mean over trajectories, with the standard deviation as its spread.

    Args:
        values: ``[N, P]``, a row for each trajectory.
        what: name of a position in the message of an error.
        x: P positions.
        x_label: meaning of the positions.
        y_label: meaning of the values.
        log: whether both axes are logarithmic.

    Raises:
        DataError: the mean at a position is not finite.
    """
    wide = values.double()
    mean, deviation = wide.mean(0), wide.std(0, correction=0)  # one trajectory has deviation 0
    require_finite(mean, what)
    return Curve(
        tuple(x),
        tuple(mean.tolist()),
        x_label,
        y_label,
        log_x=log,
        log_y=log,
        spread=tuple(deviation.tolist()),
    )
