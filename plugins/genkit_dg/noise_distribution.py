"""The published noise distribution for training the discriminator of discriminator guidance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.interfaces import NoiseDistribution
from genkit.parts.vp_sde import VpSde

TIME_MIN = 1e-5
"""Minimum time of importance sampling, as published."""


@dataclass(frozen=True, kw_only=True)
class DgImportance(NoiseDistribution):
    """Draws noise levels uniformly in log sigma from 0.001 to 152: importance-sampled VP times.

    The density of times t is proportional to beta(t) / s(t)^2 on [1e-5, 1], where
    s^2 = 1 - exp(-B), as in Song et al. Its antiderivative is log(exp(B) - 1) = 2 log sigma.
    """

    source = "Discriminator guidance, arXiv 2211.17091; importance sampling of arXiv 2101.09258"

    def quantile(self, u: Tensor) -> Tensor:
        low, high = VpSde().sigma(torch.tensor([TIME_MIN, 1.0], dtype=torch.float64)).log()
        sigma: Tensor = (low + u * (high - low)).exp()
        return sigma
