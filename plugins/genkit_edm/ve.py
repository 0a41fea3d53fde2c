"""The variance-exploding SDE (Song et al., arXiv 2011.13456), in EDM's notation.

Source: EDM, arXiv 2206.00364, table 1, column VE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import NoiseDistribution, Preconditioner, Stages
from genkit.settings import sigma_setting
from genkit.types import Coefficients
from genkit_edm.edm import LogLinearSchedule
from genkit_edm.levels import check_range
from genkit_edm.solvers.path import Time


class VeTime(Time):
    """The time of the variance-exploding SDE, sigma(t) = sqrt(t)."""

    def time(self, sigma: Tensor) -> Tensor:
        return sigma.square()

    def sigma(self, time: Tensor) -> Tensor:
        return time.sqrt()

    def rate(self, sigma: Tensor) -> Tensor:
        return 1 / (2 * sigma)


@dataclass(frozen=True, kw_only=True)
class VePreconditioner(Preconditioner):
    """Passes the noisy image to the network unscaled; the network predicts the negative noise."""

    source = "EDM, arXiv 2206.00364, table 1, column VE; Song et al., arXiv 2011.13456"

    sigma_min: float = sigma_setting(
        0.02, "lowest supported noise level; schedules are restricted to it"
    )
    sigma_max: float = sigma_setting(
        100.0, "highest supported noise level; schedules are restricted to it"
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from check_range(self.sigma_min, self.sigma_max)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        ones = torch.ones_like(sigma)
        return Coefficients(c_skip=ones, c_out=sigma, c_in=ones, c_noise=(sigma / 2).log())

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``, so that the loss is the squared error of the noise."""
        return 1 / sigma.square()

    def sigma_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max


@dataclass(frozen=True, kw_only=True)
class VeDistribution(NoiseDistribution):
    """Draws noise levels uniformly in log sigma."""

    source = "EDM, arXiv 2206.00364, table 1, column VE; Song et al., arXiv 2011.13456"

    sigma_min: float = sigma_setting(0.02, "lowest noise level")
    sigma_max: float = sigma_setting(100.0, "highest noise level")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from check_range(self.sigma_min, self.sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u


@dataclass(frozen=True, kw_only=True)
class VeSchedule(LogLinearSchedule):
    """Spaces the VE SDE's noise levels evenly in log sigma from 100 to 0.02, then adds 0."""

    source = "EDM, arXiv 2206.00364, table 1, column VE; Song et al., arXiv 2011.13456"

    sigma_min: float = sigma_setting(0.02, "lowest noise level above 0")
    sigma_max: float = sigma_setting(100.0, "first noise level")
