"""The variance-preserving SDE (see :mod:`genkit.parts.vp_sde`), as in EDM's table 1, column VP."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, Problem
from genkit.interfaces import NoiseDistribution, Preconditioner, Stages
from genkit.parts.vp_sde import VpSde, vp_mean
from genkit.settings import MAX_SIGMA, MIN_SIGMA, setting, sigma_setting
from genkit.types import Coefficients
from genkit_edm.levels import RangeSchedule, check_decreasing
from genkit_edm.solvers.path import Scaling, Time

MIN_TIME = 1e-3
"""Time of the lowest noise level above 0 in sampling (epsilon_s of EDM's table 1)."""

# Constants: computing them would import torch for `genkit show vp`, and their last bit would differ
# between machines.
LOWEST, HIGHEST = 0.010485992786702987, 152.1669702839464
"""Noise levels at the times :data:`MIN_TIME` and 1."""


@dataclass(frozen=True)
class VpTime(VpSde, Time):
    """The time of the VP SDE, which runs from 0 to 1 over the noise levels of a schedule."""

    def rate(self, sigma: Tensor) -> Tensor:
        beta = self.beta_min + self.beta_d * self.time(sigma)
        # From sigma^2 = exp(B) - 1: 2 sigma sigma' = beta (1 + sigma^2).
        return beta * (1 + sigma.square()) / (2 * sigma)

    def level(self, time: float) -> float:
        """Return the noise level at a time, in float64."""
        return float(self.sigma(torch.tensor(time, dtype=torch.float64)))

    @classmethod
    def between(cls, sigma_min: float, sigma_max: float) -> VpTime:
        """Return the VP time with sigma(MIN_TIME) = sigma_min and sigma(1) = sigma_max.

        It is defined for noise levels whose B(t) = log(1 + sigma^2) is at most :meth:`limit`.
        """
        low, high = math.log1p(sigma_min**2), math.log1p(sigma_max**2)
        # Two linear equations, B(MIN_TIME) = low and B(1) = high.
        beta_d = 2 * (high - low / MIN_TIME) / (1 - MIN_TIME)
        return cls(beta_d, high - beta_d / 2)

    def limit(self) -> float:
        """Return the upper limit of B(t) = log(1 + sigma^2) up to which a time is defined.

        B increases while beta is positive. If beta does not decrease over time, the limit is
        infinite. A high ``sigma_min`` makes beta decrease, and B is largest where beta reaches 0.
        The limit is 0 if that is at t = 1 or earlier, since the highest level then has no time.
        """
        if self.beta_d >= 0:
            return math.inf
        if self.beta_min + self.beta_d <= 0:
            return 0.0
        return self.beta_min**2 / (-2 * self.beta_d)


class VpScaling(Scaling):
    """The scaling s = 1 / sqrt(1 + sigma^2), which keeps the variance of the state near 1."""

    def scale(self, sigma: Tensor) -> Tensor:
        return vp_mean(sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        return -sigma * self.scale(sigma) ** 3


class NoisePrediction(Preconditioner):
    """Scales the noisy image to unit variance; the network predicts its noise."""

    @abstractmethod
    def c_noise(self, sigma: Tensor) -> Tensor:
        """Return the encoding ``[B]`` of noise levels ``[B]``, which is passed to the network."""

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=vp_mean(sigma),
            c_noise=self.c_noise(sigma),
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``, so that the loss is the squared error of the noise."""
        return 1 / sigma.square()


@dataclass(frozen=True, kw_only=True)
class VpPreconditioner(NoisePrediction):
    """Preconditions a network that predicts the noise from the image and the time of the VP SDE."""

    source = "EDM, arXiv 2206.00364, table 1, column VP; Song et al., arXiv 2011.13456"

    beta_d: float = setting(VpSde.beta_d, doc="increase of beta from time 0 to 1", above=0)
    beta_min: float = setting(VpSde.beta_min, doc="beta at time 0", above=0)
    m: int = setting(
        1000, doc="number of time steps of the discrete process", at_least=2, at_most=100_000
    )
    eps_t: float = setting(1e-5, doc="minimum time in training", above=0, below=1)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        highest = self._times.level(1.0)
        if not MIN_SIGMA <= highest <= MAX_SIGMA:
            yield Problem(
                ("beta_d",),
                f"must give a highest noise level from {MIN_SIGMA:g} to {MAX_SIGMA:g}, got "
                f"{highest:g} with beta_d = {self.beta_d:g} and beta_min = {self.beta_min:g}",
                "write values such as 19.9 and 0.1",
                Code.OUT_OF_RANGE,
            )

    def c_noise(self, sigma: Tensor) -> Tensor:
        return (self.m - 1) * self._times.time(sigma)

    def sigma_range(self) -> tuple[float, float]:
        return self._times.level(self.eps_t), self._times.level(1.0)

    @property
    def _times(self) -> VpTime:
        return VpTime(self.beta_d, self.beta_min)


@dataclass(frozen=True, kw_only=True)
class VpDistribution(NoiseDistribution):
    """Draws noise levels whose time in the VP SDE is uniform."""

    source = "EDM, arXiv 2206.00364, table 1, column VP; Song et al., arXiv 2011.13456"

    beta_d: float = setting(VpSde.beta_d, doc="increase of beta from time 0 to 1", above=0)
    beta_min: float = setting(VpSde.beta_min, doc="beta at time 0", above=0)
    eps_t: float = setting(1e-5, doc="minimum time", above=0, below=1)

    def quantile(self, u: Tensor) -> Tensor:
        return VpTime(self.beta_d, self.beta_min).sigma(self.eps_t + u * (1 - self.eps_t))


@dataclass(frozen=True, kw_only=True)
class VpSchedule(RangeSchedule):
    """Spaces noise levels evenly in the time of the VP SDE, then adds 0.

    ``beta_d`` and ``beta_min`` of the SDE follow from the range; for the default range they are
    19.9 and 0.1.
    """

    source = "EDM, arXiv 2206.00364, table 1, column VP; Song et al., arXiv 2011.13456"

    sigma_min: float = sigma_setting(LOWEST, "lowest noise level above 0")
    sigma_max: float = sigma_setting(HIGHEST, "first noise level")

    def check_levels(self) -> Iterator[Problem]:
        # If sigma_min is too high, B(t) is a parabola with its peak before t = 1.
        yield from check_decreasing(
            self,
            "sigma_min",
            "write a smaller value, such as 0.01, or use the schedule edm",
        )

    def levels(self) -> Tensor:
        times = torch.linspace(1, MIN_TIME, self.steps, dtype=torch.float64)
        return VpTime.between(self.sigma_min, self.sigma_max).sigma(times)
