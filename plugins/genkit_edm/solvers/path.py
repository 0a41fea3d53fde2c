"""The path of a solver: the time in which its steps are straight, and the scaling of the state.

A solver may follow y = s x in a time t, where x is at noise level sigma(t) (EDM, arXiv 2206.00364,
section 4 and table 1, "schedule" and "scaling"). With the ODE dx/dsigma = (x - D) / sigma,

    dy/dt = sigma'(t) (ds/dsigma x + s (x - D) / sigma).

The exact solution is the same along every path; the error of a step is not. Time and scaling are
independent choices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

TimeName = Literal["linear", "ve", "vp", "flow"]
ScalingName = Literal["none", "vp", "flow"]


class Time:
    """EDM's own time: sigma(t) = t."""

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time of a noise level, 0 for level 0."""
        return sigma

    def sigma(self, time: Tensor) -> Tensor:
        """Return the noise level of a time; the inverse of :meth:`time`."""
        return time

    def rate(self, sigma: Tensor) -> Tensor:
        """Return d sigma / dt at a noise level above 0."""
        return torch.ones_like(sigma)


class VeTime(Time):
    """sigma(t) = sqrt(t): the time of the variance-exploding SDE."""

    def time(self, sigma: Tensor) -> Tensor:
        return sigma.square()

    def sigma(self, time: Tensor) -> Tensor:
        return time.sqrt()

    def rate(self, sigma: Tensor) -> Tensor:
        return 1 / (2 * sigma)


class FlowTime(Time):
    """t = sigma / (1 + sigma): the time of flow matching."""

    def time(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return time / (1 - time)

    def rate(self, sigma: Tensor) -> Tensor:
        return (1 + sigma).square()


class Scaling:
    """No scaling: s = 1."""

    def scale(self, sigma: Tensor) -> Tensor:
        """Return s at a noise level; 1 at level 0."""
        return torch.ones_like(sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        """Return ds / d sigma at a noise level."""
        return torch.zeros_like(sigma)


class VpScaling(Scaling):
    """s = 1 / sqrt(1 + sigma^2), which keeps the variance of the state near 1."""

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma.square()).rsqrt()

    def scale_rate(self, sigma: Tensor) -> Tensor:
        return -sigma * self.scale(sigma) ** 3


class FlowScaling(Scaling):
    """s = 1 / (1 + sigma): with the time of flow matching dy/dt = n - x_0."""

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        return -self.scale(sigma).square()


@dataclass(frozen=True)
class Path:
    """A time and a scaling.

    Attributes:
        time: schedule sigma(t).
        scaling: scaling s, as a function of sigma.
    """

    time: Time
    scaling: Scaling

    def velocity(self, x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
        """Return dy/dt for ``x`` at a noise level above 0, where ``denoised`` is D(x; sigma)."""
        scale, scale_rate = self.scaling.scale(sigma), self.scaling.scale_rate(sigma)
        return self.time.rate(sigma) * (scale_rate * x + scale * (x - denoised) / sigma)

    def step(self, x: Tensor, sigma: Tensor, sigma_next: Tensor, velocity: Tensor) -> Tensor:
        """Return ``x`` at the next noise level, after a straight step of y in t."""
        h = self.time.time(sigma_next) - self.time.time(sigma)
        y = self.scaling.scale(sigma) * x + h * velocity
        return y / self.scaling.scale(sigma_next)

    def inner(self, sigma: Tensor, sigma_next: Tensor, alpha: float) -> Tensor:
        """Return the noise level at the fraction ``alpha`` of a step in time."""
        return self.time.sigma(torch.lerp(self.time.time(sigma), self.time.time(sigma_next), alpha))


TIMES: dict[TimeName, Time] = {"linear": Time(), "ve": VeTime(), "flow": FlowTime()}
"""The times that do not depend on a range of noise levels: all but that of the VP SDE."""

SCALINGS: dict[ScalingName, Scaling] = {
    "none": Scaling(),
    "vp": VpScaling(),
    "flow": FlowScaling(),
}
