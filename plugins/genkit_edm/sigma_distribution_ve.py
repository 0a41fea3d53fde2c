"""The training noise levels of networks for the variance-exploding SDE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from genkit.errors import Problem
from genkit.interfaces import SigmaDistribution, Stages
from genkit.settings import setting
from genkit_edm.sigma_range import range_problems


@dataclass(frozen=True, kw_only=True)
class VeDistribution(SigmaDistribution):
    """The logarithm of the noise level is uniform."""

    source = "EDM, arXiv 2206.00364, table 1, column VE; Song et al., arXiv 2011.13456"

    sigma_min: float = setting(0.02, doc="least noise level", above=0)
    sigma_max: float = setting(100.0, doc="greatest noise level", above=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from range_problems(self.sigma_min, self.sigma_max)

    def quantile(self, u: Tensor) -> Tensor:
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** u
