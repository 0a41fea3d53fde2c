"""The training noise levels of networks for the variance-preserving SDE."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.interfaces import SigmaDistribution
from genkit.settings import setting
from genkit_edm.vp import VpTime


@dataclass(frozen=True, kw_only=True)
class VpDistribution(SigmaDistribution):
    """The time of the VP SDE is uniform."""

    source = "EDM, arXiv 2206.00364, table 1, column VP; Song et al., arXiv 2011.13456"

    beta_d: float = setting(19.9, doc="how much beta grows from time 0 to 1", above=0)
    beta_min: float = setting(0.1, doc="beta at time 0", above=0)
    eps_t: float = setting(1e-5, doc="least time", above=0, below=1)

    def quantile(self, u: Tensor) -> Tensor:
        return VpTime(self.beta_d, self.beta_min).sigma(self.eps_t + u * (1 - self.eps_t))
