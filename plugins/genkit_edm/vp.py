"""The times of the variance-preserving SDE (Song et al., arXiv 2011.13456, appendix B).

With beta(t) = beta_min + beta_d t and B(t) its integral from 0, the process divided by its mean is
``x_0 + sigma n`` with sigma(t)^2 = exp(B(t)) - 1 (EDM, arXiv 2206.00364, table 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class VpTime(NamedTuple):
    """Noise levels as times from 0 to 1.

    Attributes:
        beta_d: how much beta grows from time 0 to 1.
        beta_min: beta at time 0.
    """

    beta_d: float = 19.9
    beta_min: float = 0.1

    def beta(self, time: Tensor) -> Tensor:
        """Return the rate of the noise at a time."""
        return self.beta_min + self.beta_d * time

    def sigma(self, time: Tensor) -> Tensor:
        """Return the noise level of a time."""
        return torch.expm1(time * (self.beta_min + self.beta_d / 2 * time)).sqrt()

    def time(self, sigma: Tensor) -> Tensor:
        """Return the time of a noise level; the inverse of :meth:`sigma`."""
        integral = sigma.square().log1p()
        # The form of the root of B(t) = integral that does not cancel near 0.
        root = (self.beta_min**2 + 2 * self.beta_d * integral).sqrt()
        return 2 * integral / (self.beta_min + root)

    def level(self, time: float) -> float:
        """Return the noise level of a time, in float64."""
        return float(self.sigma(torch.tensor(time, dtype=torch.float64)))

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float, earliest: float) -> VpTime:
        """Return the times in which ``sigma_min`` is at ``earliest`` and ``sigma_max`` at 1."""
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        # Two linear equations, B(earliest) = low and B(1) = high.
        beta_d = 2 * (high - low / earliest) / (1 - earliest)
        return cls(beta_d, high - beta_d / 2)
