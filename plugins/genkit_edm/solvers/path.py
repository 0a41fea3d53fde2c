"""The path of a solver: the time in which steps are straight, and the scaling of the state.

A solver may follow y = s x in a time t, where x is at noise level sigma(t) (EDM, arXiv 2206.00364,
section 4 and table 1, "schedule" and "scaling"). With the ODE dx/dsigma = (x - D) / sigma,

    dy/dt = sigma'(t) (ds/dsigma x + s (x - D) / sigma).

The exact solution is the same along every path, but the error of a step differs. Time and scaling
can be chosen independently.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


class Time:
    """EDM's time, sigma(t) = t."""

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time of a noise level, 0 for level 0."""
        return sigma

    def sigma(self, time: Tensor) -> Tensor:
        """Return the noise level of a time; the inverse of :meth:`time`."""
        return time

    def rate(self, sigma: Tensor) -> Tensor:
        """Return d sigma / dt at a noise level above 0."""
        return torch.ones_like(sigma)


class Scaling:
    """The identity scaling, s = 1."""

    def scale(self, sigma: Tensor) -> Tensor:
        """Return s at a noise level; 1 at level 0."""
        return torch.ones_like(sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        """Return ds / d sigma at a noise level."""
        return torch.zeros_like(sigma)


@dataclass(frozen=True)
class Path:
    """The time and the scaling of a solver.

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
        """Return ``x`` at the next noise level, after a step along which y is linear in t."""
        h = self.time.time(sigma_next) - self.time.time(sigma)
        y = self.scaling.scale(sigma) * x + h * velocity
        return y / self.scaling.scale(sigma_next)

    def inner(self, sigma: Tensor, sigma_next: Tensor, alpha: float) -> Tensor:
        """Return the noise level at the fraction ``alpha`` of a step in time."""
        start = self.time.time(sigma)
        end = torch.full_like(start, float(self.time.time(sigma_next)))
        return self.time.sigma(torch.lerp(start, end, alpha))
