r"""The metric ``straightness`` of sampling trajectories, in the time of the linear path.

Liu et al. (arXiv 2209.03003, section 2.2) define the straightness of a flow Z from Z_0 to Z_1 as

    S = integral from 0 to 1 of E |(Z_1 - Z_0) - dZ_t/dt|^2 dt,

which is 0 only for straight lines at constant speed. Here the flow is Z = x(sigma) / (1 + sigma)
for the solution x(sigma) of the sampling ODE. It corresponds to the path (1 - t) y + t n of flow
matching. The time t = (1 + 1/sigma_max) sigma / (1 + sigma) is 0 for data and 1 for noise. With
d(sigma) = (x - D(x; sigma)) / sigma, the velocity is

    dZ/dt = (d(sigma) - D(x; sigma)) / (1 + 1/sigma_max).

For one-dimensional data N(0, s^2), S converges to s (2 - pi/2) for large sigma_max.

The metric curvature averages a similar deviation over log sigma, without the division by 1 + sigma.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.interfaces import Context, Subject
from genkit.sample import denoise_fn
from genkit.types import Measurement, State
from genkit_metrics.trajectories import TrajectoryMetric, curve_over


@dataclass(frozen=True, kw_only=True)
class Straightness(TrajectoryMetric):
    """Mean over time of the squared distance between a trajectory's velocity and its chord."""

    scores = ("straightness",)
    source = "arXiv 2209.03003, section 2.2, for the path x / (1 + sigma)"

    def measure_bound(self, subject: Subject, context: Context) -> Measurement:
        parts = self.parts(
            context,
            lambda k: _deviations(list(self.solve(subject, context, k, self.schedule))).cpu(),
        )
        sigmas = denoise_fn(subject.denoiser).levels(self.schedule)[:-1]
        times = (1 + 1 / sigmas[0]) * sigmas / (1 + sigmas)
        curve = curve_over(
            torch.cat(parts),
            "the straightness at noise level",
            times.tolist(),
            "time, from data at 0 to noise at 1",
            "|velocity - chord|^2: mean and standard deviation",
            log=False,
        )
        values = torch.tensor(curve.y, dtype=torch.float64)
        # Times decrease. From the last time to 0, a single Euler step has a constant velocity.
        score = values[-1] * times[-1] - torch.trapezoid(values, times)
        return Measurement(
            {"straightness": float(score)},
            curves={"straightness": curve},
            facts=self.facts(subject),
        )


def path_of(states: list[State]) -> Tensor:
    """Return the path x / (1 + sigma) of the states at L + 1 levels, ``[B, L + 1, *shape]``."""
    return torch.stack([state.x / (1 + state.sigma) for state in states], dim=1)


def _deviations(states: list[State]) -> Tensor:
    """Return |(Z_1 - Z_0) - dZ/dt|^2, summed over pixels, at the L levels above 0, ``[B, L]``."""
    first, last = states[0], states[-1]
    chord = first.x / (1 + first.sigma) - last.x
    rate = 1 + 1 / first.sigma
    return torch.stack(
        [
            ((state.x - state.denoised) / state.sigma - state.denoised)
            .div(rate)
            .sub(chord)
            .square()
            .flatten(1)
            .sum(1)
            for state in states
            if state.denoised is not None
        ],
        dim=1,
    )
