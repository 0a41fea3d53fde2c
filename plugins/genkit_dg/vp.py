"""Noise levels seen as times of the variance-preserving SDE (Song et al., arXiv 2011.13456).

With beta(t) = beta_min + t (beta_max - beta_min) and B(t) its integral from 0, the VP process is
x_t = mean x_0 + std n with mean^2 = exp(-B) and std^2 = 1 - exp(-B). Divided by its mean it is
x_0 + sigma n, so sigma = std / mean and B = log(1 + sigma^2).
"""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

BETA_MIN = 0.1
BETA_MAX = 20.0
TIME_MIN = 1e-5
"""The least time that importance sampling draws."""

Time = TypeVar("Time", float, Tensor)


def vp_mean(sigma: Tensor) -> Tensor:
    """Return the factor, in (0, 1], that takes ``x_0 + sigma n`` to the VP process."""
    return (1 + sigma.square()).rsqrt()


def vp_std(sigma: Tensor) -> Tensor:
    """Return the standard deviation of the VP process' noise, in [0, 1)."""
    return sigma * vp_mean(sigma)


def vp_time(sigma: Tensor) -> Tensor:
    """Return the time at which the VP process has the noise level ``sigma``."""
    return _time(sigma.square().log1p())


def vp_sigma(time: Tensor) -> Tensor:
    """Return the noise level std / mean of a time; the inverse of :func:`vp_time`."""
    return torch.expm1(_integral(time)).sqrt()


def importance_sampled_time(u: Tensor) -> Tensor:
    """Return the quantiles of the density proportional to beta(t) / std(t)^2 on [1e-5, 1].

    The density is that of importance sampling by Song et al., arXiv 2101.09258. Its antiderivative
    is log(exp(B) - 1) = 2 log sigma, so such times are uniform in log sigma.

    Args:
        u: fractions in (0, 1), any shape; float64 for exact results near 0.
    """
    low, high = (math.log(math.expm1(_integral(t))) for t in (TIME_MIN, 1.0))
    return _time(F.softplus(low + u * (high - low)))


def _integral(time: Time) -> Time:
    """B(t), the integral of beta from 0."""
    return BETA_MIN * time + (BETA_MAX - BETA_MIN) / 2 * time * time


def _time(integral: Tensor) -> Tensor:
    """The time at which B is ``integral``, in the form of the root that does not cancel."""
    slope = BETA_MAX - BETA_MIN
    return 2 * integral / (BETA_MIN + (BETA_MIN**2 + 2 * slope * integral).sqrt())
