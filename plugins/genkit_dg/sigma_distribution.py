"""The noise levels on which discriminator guidance trains its discriminator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.interfaces import SigmaDistribution
from genkit_dg.vp import importance_sampled_time, vp_sigma


@dataclass(frozen=True, kw_only=True)
class DgImportance(SigmaDistribution):
    """Importance-sampled VP times: uniform in log sigma from 0.001 to 152."""

    source = "Discriminator guidance, arXiv 2211.17091; importance sampling of arXiv 2101.09258"

    def quantile(self, u: Tensor) -> Tensor:
        return vp_sigma(importance_sampled_time(u))
