"""Base class of metrics of the sampling ODE. All metrics start from the same noise."""

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
"""Number of trajectories that are solved at a time; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class TrajectoryMetric(Metric):
    """Measure the trajectories of the sampling ODE of a denoiser."""

    requires_denoiser = True
    higher_is_better = False
    accepts_statistics = True

    count: int = setting(256, doc="number of trajectories", at_least=1, at_most=10**6)
    solver: Solver = setting(doc="deterministic solver of the ODE", use={"use": "heun"})
    schedule: Schedule = setting(
        doc="schedule of the solution with many steps", use={"use": "edm", "steps": 64}
    )
    start: Start = setting("auto", doc=START_DOC)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.solver.stochastic:
            yield Problem(
                ("solver",), "must be deterministic, got one that adds noise", "remove s_churn"
            )
        elif self.schedule.bound and not any(
            problem for part in (self.schedule, self.solver) for problem in part.check(earlier)
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
        measurement = replace(self, schedule=schedule).measure_bound(subject, context)
        if self.schedule.bound:
            return measurement
        # The settings of a fitted schedule contain the id of a stage, but not the noise levels.
        levels = ", ".join(f"{level:.6g}" for level in schedule.sigmas().tolist())
        return replace(measurement, facts={**measurement.facts, "levels": levels})

    @abstractmethod
    def measure_bound(self, subject: Subject, context: Context) -> Measurement:
        """Return scores and curves like ``measure``; the schedule of ``self`` is already bound."""

    def start_of(self, subject: Subject) -> ResolvedStart:
        """Return the start of the trajectories, with ``auto`` resolved."""
        return resolve_start(self.start, subject.denoiser, subject.coupling, self.schedule)

    def facts(self, subject: Subject) -> dict[str, str]:
        """Return the facts, besides the settings of the metric, on which scores depend."""
        return {f"{SAMPLED}start": self.start_of(subject)}

    def batches(self) -> list[range]:
        """Return the indices of the trajectories of each batch."""
        return [
            range(start, min(start + BATCH, self.count)) for start in range(0, self.count, BATCH)
        ]

    def parts(self, context: Context, solve: Callable[[range], Tensor]) -> list[Tensor]:
        """Return the result of ``solve`` for each batch of trajectories, in order.

        Collective: the batches are distributed over the ranks, and every rank receives all results.

        Args:
            context: context of the stage.
            solve: function that takes the indices of a batch and returns a CPU tensor.
        """
        results: list[Tensor] = []
        for indices in context.world.padded_shard(self.batches()):
            if context.stop_requested():
                raise InterruptedRun(f"{len(results) * BATCH} of {self.count} trajectories")
            results += context.world.all_gather(None if indices is None else solve(indices))
        return results

    def solve(
        self, subject: Subject, context: Context, indices: range, schedule: Schedule
    ) -> Iterator[State]:
        """Yield the states of a batch of trajectories, from the first noise level to 0.

        Trajectory k starts from the same noise with every schedule and in every metric. It has the
        label of sample k, modulo the number of samples.

        Args:
            subject: samples, whose denoiser is used.
            context: context of the stage.
            indices: indices of the trajectories.
            schedule: schedule of the noise levels.
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
    """Return a curve of the mean over trajectories, with their standard deviation as its spread.

    Args:
        values: values at P positions of N trajectories, ``[N, P]``.
        what: name of the value at a position, for error messages.
        x: the P positions.
        x_label: label of the x-axis.
        y_label: label of the y-axis.
        log: whether both axes are logarithmic.

    Raises:
        DataError: the mean at a position is not finite.
    """
    wide = values.double()
    # Without the correction, the standard deviation of a single trajectory is 0 instead of NaN.
    mean, deviation = wide.mean(0), wide.std(0, correction=0)
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
