"""EDM's distribution of training noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.interfaces import SigmaDistribution
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class LogNormal(SigmaDistribution):
    """The logarithm of the noise level is normal: most training is spent on middle levels."""

    source = "EDM, arXiv 2206.00364, table 1"

    p_mean: float = setting(-1.2, doc="mean of ln(sigma)")
    p_std: float = setting(1.2, doc="standard deviation of ln(sigma)", above=0)

    def quantile(self, u: Tensor) -> Tensor:
        # ndtri is the inverse of the normal distribution function; float32 would lose its tails.
        normal: Tensor = torch.special.ndtri(u.double())
        return (self.p_mean + self.p_std * normal).exp()
