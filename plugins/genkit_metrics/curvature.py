"""The metric ``curvature``: deviation of sampling trajectories from straight lines.

With d(sigma) = (x - D(x; sigma)) / sigma, the slope of the trajectory, and its chord
(x(sigma_max) - x(0)) / sigma_max, the curvature at sigma is E |d(sigma) - chord|^2, summed over
pixels. It is 0 where the trajectories are straight lines, which one Euler step solves exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import Context, Stages, Subject
from genkit.sample import denoise_fn
from genkit.types import Measurement, State
from genkit_metrics.trajectories import TrajectoryMetric, curve_over


@dataclass(frozen=True, kw_only=True)
class Curvature(TrajectoryMetric):
    """Mean over log sigma of the squared distance between a trajectory's slope and its chord."""

    scores = ("curvature",)
    source = "genkit's digits study; the straightness of arXiv 2209.03003 at each noise level"

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        if self.schedule.steps < 2:
            yield Problem(
                ("schedule", "steps"),
                "must be at least 2, since the score is an average over a range of noise levels, "
                f"got {self.schedule.steps}",
                "write 64",
            )

    def measure_bound(self, subject: Subject, context: Context) -> Measurement:
        parts = self.parts(
            context,
            lambda k: _deviations(list(self.solve(subject, context, k, self.schedule))).cpu(),
        )
        sigmas = denoise_fn(subject.denoiser).levels(self.schedule)[:-1]
        curve = curve_over(
            torch.cat(parts),
            "the curvature at noise level",
            sigmas.tolist(),
            "noise level sigma",
            "curvature: mean and standard deviation",
        )
        positions = sigmas.log()
        area = torch.trapezoid(torch.tensor(curve.y, dtype=torch.float64), positions)
        mean = area / (positions[-1] - positions[0])
        return Measurement(
            {"curvature": float(mean)}, curves={"curvature": curve}, facts=self.facts(subject)
        )


def _deviations(states: list[State]) -> Tensor:
    """Return |d(sigma) - chord|^2 summed over pixels at the L noise levels above 0, ``[B, L]``."""
    chord = (states[0].x - states[-1].x) / states[0].sigma
    return torch.stack(
        [
            ((state.x - state.denoised) / state.sigma - chord).square().flatten(1).sum(1)
            for state in states
            if state.denoised is not None
        ],
        dim=1,
    )
