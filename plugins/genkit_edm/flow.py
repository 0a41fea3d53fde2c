r"""Linear-path flow matching as preconditioner, noise distribution and schedule of a denoiser.

Flow matching (arXiv 2210.02747, eq. 20-23; rectified flow, arXiv 2209.03003) moves along
x_t = (1 - t) x_0 + t n, from data at t = 0 to noise at t = 1, and trains a network F for the
velocity v = dx_t/dt = n - x_0. Divided by 1 - t the path is x = x_0 + sigma n with

    sigma = t / (1 - t),    t = sigma / (1 + sigma),    x_t = (1 - t) x = x / (1 + sigma).

Since x_t = x_0 + t v, a predicted velocity F gives the clean image

    D(x; sigma) = x_t - t F(x_t; t):    c_in = c_skip = 1 / (1 + sigma),    c_out = -t.

And D - x_0 = -t (F - v), so that with the weight 1 / t^2 the denoising loss is the flow-matching
loss |F - v|^2. Euler's step in sigma is Euler's step of dx_t/dt = F in t, to the same states: with
(x - D) / sigma = x_t + (1 - t) F, a step from sigma to sigma' gives x'_t = x_t + (t' - t) F.

In other texts, t runs from noise at 0 to data at 1; v then has the opposite sign.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import NoiseDistribution, Preconditioner, Schedule, Stages
from genkit.settings import setting, sigma_setting
from genkit.types import Coefficients
from genkit_edm.levels import check_decreasing
from genkit_edm.solvers.path import Scaling, Time


class FlowTime(Time):
    """The time of flow matching, t = sigma / (1 + sigma)."""

    def time(self, sigma: Tensor) -> Tensor:
        return sigma / (1 + sigma)

    def sigma(self, time: Tensor) -> Tensor:
        return time / (1 - time)

    def rate(self, sigma: Tensor) -> Tensor:
        return (1 + sigma).square()


class FlowScaling(Scaling):
    """The scaling of flow matching, s = 1 / (1 + sigma), with which dy/dt = n - x_0."""

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def scale_rate(self, sigma: Tensor) -> Tensor:
        return -self.scale(sigma).square()


@dataclass(frozen=True, kw_only=True)
class FlowPreconditioner(Preconditioner):
    """Preconditions a network that predicts the velocity of a straight path from data to noise."""

    source = "Flow matching, arXiv 2210.02747, eq. 20-23; rectified flow, arXiv 2209.03003"

    def coefficients(self, sigma: Tensor) -> Coefficients:
        scale, time = 1 / (1 + sigma), sigma / (1 + sigma)
        return Coefficients(c_skip=scale, c_out=-time, c_in=scale, c_noise=time)

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / t^2``, so that the loss is the squared error of the velocity."""
        return ((1 + sigma) / sigma).square()


@dataclass(frozen=True, kw_only=True)
class FlowDistribution(NoiseDistribution):
    """Draws noise levels whose flow-matching time t = sigma / (1 + sigma) is uniform.

    For the logit-normal time of Stable Diffusion 3 (arXiv 2403.03206, section 3.1), use
    ``log-normal``, because ln(sigma) is the logit of t: ``p_mean`` is its location and ``p_std``
    its scale, usually 0 and 1.
    """

    source = "Flow matching, arXiv 2210.02747, eq. 5; rectified flow, arXiv 2209.03003"

    # Closer to 0, x_t and x_0 are equal in float32, and the loss would consist of rounding errors.
    eps_t: float = setting(
        1e-5, doc="minimum distance of the times from 0 and 1", above=0, below=0.5
    )

    def quantile(self, u: Tensor) -> Tensor:
        t = self.eps_t + u.double() * (1 - 2 * self.eps_t)
        return t / (1 - t)


@dataclass(frozen=True, kw_only=True)
class FlowSchedule(Schedule):
    """Spaces noise levels evenly in t = sigma / (1 + sigma), down to 0."""

    source = "Flow matching, arXiv 2210.02747, eq. 20; rectified flow, arXiv 2209.03003"

    # t = 1, pure noise, has no finite noise level; 1000 is t = 0.999.
    sigma_max: float = sigma_setting(1000.0, "first noise level")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from check_decreasing(self)

    def within(self, lowest: float, highest: float) -> Self:
        return replace(self, sigma_max=min(self.sigma_max, highest))

    def sigmas(self) -> Tensor:
        start = self.sigma_max / (1 + self.sigma_max)
        t = torch.linspace(start, 0, self.steps + 1, dtype=torch.float64)
        return t / (1 - t)
