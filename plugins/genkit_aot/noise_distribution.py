"""Noise levels of training for assigned noise, which decides much of an image at high levels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import SigmaDistribution, Stages
from genkit.settings import setting

_HALVINGS = 60  # of the range of ln(sigma), to the last digits of float64


@dataclass(frozen=True, kw_only=True)
class CoupledLogNormal(SigmaDistribution):
    """EDM's log-normal levels, with a share of draws uniform in ln(sigma) above them.

    Assigned noise predicts a third of an image's variance, which the denoiser has to learn at high
    levels, where EDM draws little: 1 % above sigma 5. The share is drawn between one standard
    deviation above the mean and ``sigma_max``. On the digits 0.2 and 0.4 do equally well.
    """

    source = "genkit's digits study; EDM, arXiv 2206.00364, table 1, for the rest"

    p_mean: float = setting(-1.2, doc="mean of ln(sigma) of the log-normal draws")
    p_std: float = setting(1.2, doc="standard deviation of ln(sigma) of those", above=0)
    high_share: float = setting(
        0.2, doc="share of draws that is uniform in ln(sigma) at high noise", above=0, below=1
    )
    sigma_max: float = setting(80.0, doc="maximum noise level of that share", above=0)

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

    def _below(self, log_sigma: Tensor) -> Tensor:
        """Return the share of draws below levels, of which the natural logarithms are given."""
        normal = torch.special.ndtr((log_sigma - self.p_mean) / self.p_std)
        uniform = ((log_sigma - self._bottom) / (self._top - self._bottom)).clamp(0, 1)
        below: Tensor = (1 - self.high_share) * normal + self.high_share * uniform
        return below

    def quantile(self, u: Tensor) -> Tensor:
        # No closed form: bisection between levels that no u of float64 is beyond.
        u = u.double()
        low = torch.full_like(u, self.p_mean - 40 * self.p_std)
        high = torch.full_like(u, max(self._top, self.p_mean + 40 * self.p_std))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            less = self._below(middle) < u
            low, high = torch.where(less, middle, low), torch.where(less, high, middle)
        return ((low + high) / 2).exp()
