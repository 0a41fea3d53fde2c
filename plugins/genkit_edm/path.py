"""The time and the scale in which a solver takes its straight steps (EDM, section 4, table 1).

A solver may follow y = s x in a time t, where x is at noise level sigma(t). With the ODE
dx/dsigma = (x - D) / sigma, dy/dt = sigma'(t) (ds/dsigma x + s (x - D) / sigma). The exact solution
is the same along every path; what a step misses of it is not.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from genkit_edm.vp import VpTime

PathName = Literal["linear", "ve", "vp", "flow"]


class Path:
    """EDM's own path: sigma(t) = t and s = 1. The steps are straight in sigma."""

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time of a noise level, 0 for level 0."""
        return sigma

    def sigma(self, time: Tensor) -> Tensor:
        """Return the noise level of a time; the inverse of :meth:`time`."""
        return time

    def rate(self, sigma: Tensor) -> Tensor:
        """Return d sigma / dt at a noise level above 0."""
        return torch.ones_like(sigma)

    def scale(self, sigma: Tensor) -> Tensor:
        """Return s at a noise level; 1 at level 0."""
        return torch.ones_like(sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        """Return ds / d sigma at a noise level."""
        return torch.zeros_like(sigma)

    def velocity(self, x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
        """Return dy/dt for ``x`` at a noise level above 0, where ``denoised`` is D(x; sigma)."""
        along = self.scale_rate(sigma) * x + self.scale(sigma) * (x - denoised) / sigma
        return self.rate(sigma) * along

    def step(self, x: Tensor, sigma: Tensor, sigma_next: Tensor, velocity: Tensor) -> Tensor:
        """Return ``x`` at the next noise level, after a straight step of y in t."""
        h = self.time(sigma_next) - self.time(sigma)
        return (self.scale(sigma) * x + h * velocity) / self.scale(sigma_next)


class VePath(Path):
    """sigma(t) = sqrt(t) and s = 1: the variance-exploding SDE's own time."""

    def time(self, sigma: Tensor) -> Tensor:
        return sigma.square()

    def sigma(self, time: Tensor) -> Tensor:
        return time.sqrt()

    def rate(self, sigma: Tensor) -> Tensor:
        return 1 / (2 * sigma)


class VpPath(Path):
    """The time of the variance-preserving SDE and s = 1 / sqrt(1 + sigma^2)."""

    _times = VpTime()

    def time(self, sigma: Tensor) -> Tensor:
        return self._times.time(sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return self._times.sigma(time)

    def rate(self, sigma: Tensor) -> Tensor:
        # From sigma^2 = exp(B) - 1: 2 sigma sigma' = beta (1 + sigma^2).
        return self._times.beta(self.time(sigma)) * (1 + sigma.square()) / (2 * sigma)

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma.square()).rsqrt()

    def scale_rate(self, sigma: Tensor) -> Tensor:
        return -sigma * self.scale(sigma) ** 3


class FlowPath(Path):
    """t = sigma / (1 + sigma) and s = 1 - t: flow matching's path, on which dy/dt = n - x_0."""

    def time(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return time / (1 - time)

    def rate(self, sigma: Tensor) -> Tensor:
        return (1 + sigma).square()

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        return -self.scale(sigma).square()


PATHS: dict[PathName, Path] = {
    "linear": Path(),
    "ve": VePath(),
    "vp": VpPath(),
    "flow": FlowPath(),
}
