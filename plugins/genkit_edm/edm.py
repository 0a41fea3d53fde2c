"""EDM's column of table 1: preconditioner, noise distribution and schedules (arXiv 2206.00364)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import NoiseDistribution, Preconditioner
from genkit.settings import setting
from genkit.types import Coefficients
from genkit_edm.levels import RangeSchedule, falling_problems


@dataclass(frozen=True, kw_only=True)
class EdmPreconditioner(Preconditioner):
    """Scales the network so that its input and its target have unit variance at every level."""

    source = "EDM, arXiv 2206.00364, eq. 7 and table 1"

    sigma_data: float = setting(0.5, doc="standard deviation of the data", above=0)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        total = (sigma.square() + self.sigma_data**2).sqrt()
        return Coefficients(
            c_skip=self.sigma_data**2 / total.square(),
            c_out=sigma * self.sigma_data / total,
            c_in=1 / total,
            c_noise=sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``: every noise level starts with the same expected loss."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


@dataclass(frozen=True, kw_only=True)
class LogNormal(NoiseDistribution):
    """The logarithm of the noise level is normal: most training is spent on middle levels."""

    source = "EDM, arXiv 2206.00364, table 1"

    p_mean: float = setting(-1.2, doc="mean of ln(sigma)")
    p_std: float = setting(1.2, doc="standard deviation of ln(sigma)", above=0)

    def quantile(self, u: Tensor) -> Tensor:
        # ndtri is the inverse of the normal distribution function; float32 would lose its tails.
        normal: Tensor = torch.special.ndtri(u.double())
        return (self.p_mean + self.p_std * normal).exp()


@dataclass(frozen=True, kw_only=True)
class EdmSchedule(RangeSchedule):
    """Noise levels evenly spaced in sigma^(1 / rho), then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5"

    # Beyond a million, rounding of the powers would move the levels.
    rho: float = setting(
        7.0, doc="greater values put more steps at low noise", above=0, at_most=1e6
    )

    def check_levels(self) -> Iterator[Problem]:
        yield from falling_problems(self, "rho", "write a value from 1 to 100; 7 is usual")

    def levels(self) -> Tensor:
        ends = torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64)
        high, low = (ends ** (1 / self.rho)).tolist()
        # A single step goes from sigma_max straight to 0; linspace then has one point, the first.
        roots = torch.linspace(high, low, self.steps, dtype=torch.float64)
        return roots**self.rho


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(RangeSchedule):
    """Noise levels evenly spaced in sigma, then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5 with rho = 1"

    def levels(self) -> Tensor:
        return torch.linspace(self.sigma_max, self.sigma_min, self.steps, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class LogLinearSchedule(RangeSchedule):
    """Noise levels evenly spaced in log sigma, then 0."""

    source = "EDM, arXiv 2206.00364, eq. 5 as rho grows without bound; DPM-Solver++, 2211.01095"

    def levels(self) -> Tensor:
        ends = math.log(self.sigma_max), math.log(self.sigma_min)
        return torch.linspace(*ends, self.steps, dtype=torch.float64).exp()
