"""The training noise levels of networks for improved DDPM."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.interfaces import SigmaDistribution
from genkit.settings import setting
from genkit_edm.iddpm import iddpm_levels


@dataclass(frozen=True, kw_only=True)
class IddpmDistribution(SigmaDistribution):
    """Every level of improved DDPM's table is equally likely."""

    source = "EDM, arXiv 2206.00364, table 1, column iDDPM; arXiv 2102.09672"

    c_1: float = setting(0.001, doc="bounds the highest noise level", above=0, below=1)
    c_2: float = setting(0.008, doc="bounds the lowest noise levels", above=0)
    m: int = setting(1000, doc="number of noise levels", at_least=2, at_most=100_000)

    def quantile(self, u: Tensor) -> Tensor:
        levels = iddpm_levels(self.c_1, self.c_2, self.m).to(u.device, non_blocking=True)
        return levels[(u * self.m).long().clamp(max=self.m - 1)]
