"""Noise distribution for assigned noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import NoiseDistribution, Stages
from genkit.settings import setting, sigma_setting

_NEWTON_STEPS = 12
"""Number of Newton steps. The error of a quantile is then 1e-15 for a ``high_share`` of at least
0.01, and 1e-7 for 1e-6."""


@dataclass(frozen=True, kw_only=True)
class CoupledLogNormal(NoiseDistribution):
    """Draws log-normal noise levels as in EDM, and a share of high levels uniformly in ln(sigma).

    Assigned noise predicts about a third of the variance of the digits. The denoiser has to learn
    this at high noise levels, which EDM draws rarely: only 1 % are above sigma 5. The additional
    levels lie between one standard deviation above the mean of ln(sigma) and ``sigma_max``. On the
    digits, shares of 0.2 and 0.4 give equally good samples.
    """

    source = "log-normal levels of EDM, arXiv 2206.00364, table 1; high levels: docs/results/pairs"

    p_mean: float = setting(
        -1.2, doc="mean of ln(sigma) of log-normal draws", at_least=-20, at_most=20
    )
    p_std: float = setting(
        1.2, doc="standard deviation of ln(sigma) of log-normal draws", above=0, at_most=20
    )
    high_share: float = setting(
        0.2, doc="share of draws that are uniform in ln(sigma) at high levels", above=0, below=1
    )
    sigma_max: float = sigma_setting(80.0, "maximum noise level of the uniform draws")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self._top <= self._bottom:
            bottom = f"exp(p_mean + p_std) = {math.exp(self._bottom):.3g}"
            reason = f"must be above {bottom}, got {self.sigma_max:g}"
            yield Problem(("sigma_max",), reason, "write 80", Code.OUT_OF_RANGE)

    @property
    def _bottom(self) -> float:
        return self.p_mean + self.p_std

    @property
    def _top(self) -> float:
        return math.log(self.sigma_max)

    def _normal(self, u: Tensor) -> Tensor:
        """Return ln(sigma) at the quantiles ``u`` of the log-normal draws, clamped to [0, 1]."""
        log_sigma: Tensor = self.p_mean + self.p_std * torch.special.ndtri(u.clamp(0, 1))
        return log_sigma

    def quantile(self, u: Tensor) -> Tensor:
        u = u.double()
        rest, width = 1 - self.high_share, self._top - self._bottom
        # In the range of the uniform share, the quantile has no closed form. The CDF is concave
        # there, so Newton's method converges monotonically from the lower end.
        inside = torch.full_like(u, self._bottom)
        for _ in range(_NEWTON_STEPS):
            z = (inside - self.p_mean) / self.p_std
            cdf = rest * torch.special.ndtr(z) + self.high_share * (inside - self._bottom) / width
            normal = torch.exp(-z.square() / 2) / (self.p_std * math.sqrt(2 * math.pi))
            slope = rest * normal + self.high_share / width
            inside = (inside + (u - cdf) / slope).clamp(self._bottom, self._top)
        low, high = self._normal(u / rest), self._normal((u - self.high_share) / rest)
        log_sigma = torch.where(high > self._top, high, inside)
        return torch.where(low < self._bottom, low, log_sigma).exp()
