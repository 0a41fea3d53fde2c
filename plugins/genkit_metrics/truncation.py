"""The metric ``truncation``: distance between solutions with few and with many steps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import Context, Schedule, Stages, Subject
from genkit.settings import setting
from genkit.tensors import require_finite
from genkit.types import Measurement
from genkit_metrics.trajectories import TrajectoryMetric, curve_over


@dataclass(frozen=True, kw_only=True)
class Truncation(TrajectoryMetric):
    """Mean L2 distance between solutions with few and with many steps from the same noise.

    The score for 5 steps is named ``truncation_5``.
    """

    source = "genkit's digits study; global truncation error as in arXiv 2206.00364, section 3"

    steps: tuple[int, ...] = setting(
        (5, 9, 18),
        doc="numbers of steps of the solutions with few steps, increasing",
        at_least=1,
    )

    @property
    def scores(self) -> tuple[str, ...]:
        return tuple(f"truncation_{steps}" for steps in self.steps)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        if not self.steps:
            reason = "must have at least one number of steps, got none"
            yield Problem(("steps",), reason, "write steps = [5, 9, 18]", Code.WRONG_LENGTH)
        if any(after <= before for before, after in pairwise(self.steps)):
            reason, hint = f"must be increasing, got {list(self.steps)}", "write each number once"
            yield Problem(("steps",), reason, hint, Code.OUT_OF_RANGE)
        if not self.schedule.bound:
            reason = "must be defined for any number of steps, got fitted noise levels"
            yield Problem(("schedule",), reason, 'write { use = "edm" }', Code.CONFLICT)
        for index, steps in enumerate(self.steps):
            if steps >= self.schedule.steps:
                yield Problem(
                    ("steps", index),
                    f"must be below the {self.schedule.steps} steps of the schedule, got {steps}",
                    f"write a value below {self.schedule.steps}",
                    Code.OUT_OF_RANGE,
                )

    def measure_bound(self, subject: Subject, context: Context) -> Measurement:
        schedules = [replace(self.schedule, steps=steps) for steps in self.steps]

        def distances(indices: range) -> Tensor:
            """Return the distances to the solution with many steps, ``[B, len(schedules)]``."""
            exact = self._end(subject, context, indices, self.schedule)
            ends = [self._end(subject, context, indices, few) for few in schedules]
            errors = [(end - exact).flatten(1).square().sum(dim=1).sqrt() for end in ends]
            return torch.stack(errors, dim=1).cpu()

        errors = torch.cat(self.parts(context, distances))
        require_finite(errors, "the truncation error of trajectory")
        curve = curve_over(
            errors,
            "the truncation error at number of steps",
            self.steps,
            "number of steps",
            "truncation error: mean and standard deviation",
        )
        scores = dict(zip(self.scores, curve.y, strict=True))
        return Measurement(scores, curves={"truncation": curve}, facts=self.facts(subject))

    def _end(
        self, subject: Subject, context: Context, indices: range, schedule: Schedule
    ) -> Tensor:
        """Return the end points of the trajectories, ``[B, *shape]``."""
        (last,) = deque(self.solve(subject, context, indices, schedule), maxlen=1)
        return last.x
