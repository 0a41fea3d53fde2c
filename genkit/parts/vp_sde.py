"""The variance-preserving SDE (Song et al., arXiv 2011.13456, appendix B).

With beta(t) = beta_min + beta_d t and its integral B(t) from 0 to t, the process is
x_t = m x_0 + s n with m^2 = exp(-B) and s^2 = 1 - exp(-B). Division by m gives x_0 + sigma n, the
process on which denoisers are trained, with sigma = s / m and B = log(1 + sigma^2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VpSde:
    """Conversion between noise levels and times of the VP SDE.

    Attributes:
        beta_d: increase of beta from time 0 to 1.
        beta_min: beta at time 0. If it is negative, B is negative at small times, and only times
            after the positive zero of B have a noise level.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    def sigma(self, time: Tensor) -> Tensor:
        """Return the noise level of a time."""
        return torch.expm1(time * (self.beta_min + self.beta_d / 2 * time)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time of a noise level, the inverse of :meth:`sigma`; 0 for noise level 0."""
        integral = sigma.square().log1p()
        root = (self.beta_min**2 + 2 * self.beta_d * integral).sqrt()
        # The root of B(t) = integral has two forms. Each is used where it has no cancellation.
        if self.beta_min > 0:
            return 2 * integral / (self.beta_min + root)
        return torch.where(integral > 0, (root - self.beta_min) / self.beta_d, 0)


def vp_mean(sigma: Tensor) -> Tensor:
    """Return the factor m in (0, 1] by which ``x_0 + sigma n`` is scaled to the VP process."""
    return (1 + sigma.square()).rsqrt()
