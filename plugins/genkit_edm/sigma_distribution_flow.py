"""The training noise levels of flow matching."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.interfaces import SigmaDistribution
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class FlowDistribution(SigmaDistribution):
    """The time t = sigma / (1 + sigma) of flow matching is uniform.

    The logit-normal time of Stable Diffusion 3 (arXiv 2403.03206, section 3.1) needs no component
    of its own: ln(sigma) is the logit of t, so it is ``log-normal`` with ``p_mean`` and ``p_std``
    as its location and scale, 0 and 1 as a rule.
    """

    source = "Flow matching, arXiv 2210.02747, eq. 5; rectified flow, arXiv 2209.03003"

    # Nearer to 0 float32 could not tell x_t from x_0, and the loss would be rounding.
    eps_t: float = setting(
        1e-5, doc="times nearer than this to 0 or 1 are left out", above=0, below=0.5
    )

    def quantile(self, u: Tensor) -> Tensor:
        t = self.eps_t + u.double() * (1 - 2 * self.eps_t)
        return t / (1 - t)
