"""How far a few-step solution ends from the many-step solution of the same noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Context, Schedule, Stages, Subject
from genkit.settings import setting
from genkit.tensors import require_finite
from genkit.types import Measurement
from genkit_metrics.trajectories import TrajectoryMetric


@dataclass(frozen=True, kw_only=True)
class Truncation(TrajectoryMetric):
    """Mean L2 distance of a few-step solution to the many-step one from the same noise."""

    source = "genkit's digits study; global truncation error as in arXiv 2206.00364, section 3"

    steps: int = setting(5, doc="steps of the few-step solution", at_least=1)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.steps >= self.schedule.steps:
            yield Problem(
                ("steps",),
                f"{self.steps} is not below the {self.schedule.steps} steps of the schedule",
                f"write a value below {self.schedule.steps}",
            )

    def measure(self, subject: Subject, context: Context) -> Measurement:
        few = replace(self.schedule, steps=self.steps)
        total = 0.0
        for indices in self.starts():
            end = self._end(subject, context, indices, few)
            exact = self._end(subject, context, indices, self.schedule)
            distances = (end - exact).flatten(1).norm(dim=1)
            require_finite(distances, "the truncation error of trajectory")
            total += float(distances.sum())
        return Measurement(scores={"truncation": total / self.count})

    def _end(
        self, subject: Subject, context: Context, indices: range, schedule: Schedule
    ) -> Tensor:
        """Return the items ``[B, *shape]`` in which the trajectories end."""
        (last,) = deque(self.solve(subject, context, indices, schedule), maxlen=1)
        return last.x
