"""Preconditioner, noise distribution and schedules of EDM (arXiv 2206.00364, table 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import NoiseDistribution, Preconditioner
from genkit.settings import setting, sigma_setting
from genkit.types import Coefficients
from genkit_edm.levels import RangeSchedule, check_decreasing


@dataclass(frozen=True, kw_only=True)
class EdmPreconditioner(Preconditioner):
    """Scales the network's input and target to unit variance at every noise level."""

    source = "EDM, arXiv 2206.00364, eq. 7 and table 1"

    sigma_data: float = sigma_setting(0.5, "standard deviation of the data")

    def coefficients(self, sigma: Tensor) -> Coefficients:
        total = (sigma.square() + self.sigma_data**2).sqrt()
        return Coefficients(
            c_skip=self.sigma_data**2 / total.square(),
            c_out=sigma * self.sigma_data / total,
            c_in=1 / total,
            c_noise=sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``, so that initially the expected loss is the same at all levels."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()


@dataclass(frozen=True, kw_only=True)
class LogNormal(NoiseDistribution):
    """Draws log-normal noise levels, so that training concentrates on intermediate levels."""

    source = "EDM, arXiv 2206.00364, table 1"

    p_mean: float = setting(-1.2, doc="mean of ln(sigma)", at_least=-20, at_most=20)
    p_std: float = setting(1.2, doc="standard deviation of ln(sigma)", above=0, at_most=20)

    def quantile(self, u: Tensor) -> Tensor:
        # ndtri is the inverse of the normal CDF; in float32 it would be inaccurate in the tails.
        normal: Tensor = torch.special.ndtri(u.double())
        return (self.p_mean + self.p_std * normal).exp()


@dataclass(frozen=True, kw_only=True)
class EdmSchedule(RangeSchedule):
    """Spaces noise levels evenly in sigma^(1 / rho), then adds 0."""

    source = "EDM, arXiv 2206.00364, eq. 5"

    # For rho above 1e6 the rounding of sigma^(1 / rho) would change the levels.
    rho: float = setting(
        7.0,
        doc="exponent of the spacing; larger values put more steps at low noise",
        above=0,
        at_most=1e6,
    )

    def check_levels(self) -> Iterator[Problem]:
        yield from check_decreasing(self, "rho", "write a value from 1 to 100, usually 7")

    def levels(self) -> Tensor:
        ends = torch.tensor([self.sigma_max, self.sigma_min], dtype=torch.float64)
        high, low = (ends ** (1 / self.rho)).tolist()
        # With steps = 1 linspace returns its first point: a single step from sigma_max to 0.
        roots = torch.linspace(high, low, self.steps, dtype=torch.float64)
        return roots**self.rho


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(RangeSchedule):
    """Spaces noise levels evenly in sigma, then adds 0."""

    source = "EDM, arXiv 2206.00364, eq. 5 with rho = 1"

    def levels(self) -> Tensor:
        return torch.linspace(self.sigma_max, self.sigma_min, self.steps, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class LogLinearSchedule(RangeSchedule):
    """Spaces noise levels evenly in log sigma, then adds 0."""

    source = "EDM, arXiv 2206.00364, eq. 5 as rho tends to infinity; DPM-Solver++, 2211.01095"

    def levels(self) -> Tensor:
        ends = math.log(self.sigma_max), math.log(self.sigma_min)
        return torch.linspace(*ends, self.steps, dtype=torch.float64).exp()
