"""How far a few-step solution ends from the many-step solution of the same noise."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
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

    scores = ("truncation",)
    source = "genkit's digits study; global truncation error as in arXiv 2206.00364, section 3"
    higher_is_better = False

    steps: int = setting(5, doc="steps of the few-step solution", at_least=1)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        if self.steps >= self.schedule.steps:
            yield Problem(
                ("steps",),
                f"{self.steps} is not below the {self.schedule.steps} steps of the schedule",
                f"write a value below {self.schedule.steps}",
            )

    def measure(self, subject: Subject, context: Context) -> Measurement:
        few = replace(self.schedule, steps=self.steps)

        def distances(indices: range) -> Tensor:
            end = self._end(subject, context, indices, few)
            exact = self._end(subject, context, indices, self.schedule)
            return (end - exact).flatten(1).square().sum(dim=1).sqrt().cpu()

        found = torch.cat(self.parts(context, distances))
        require_finite(found, "the truncation error of trajectory")
        return Measurement(scores={"truncation": float(found.double().mean())})

    def _end(
        self, subject: Subject, context: Context, indices: range, schedule: Schedule
    ) -> Tensor:
        """Return the items ``[B, *shape]`` in which the trajectories end."""
        (last,) = deque(self.solve(subject, context, indices, schedule), maxlen=1)
        return last.x
