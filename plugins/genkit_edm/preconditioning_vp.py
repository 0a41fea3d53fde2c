"""The preconditioning of networks trained on the variance-preserving SDE."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.interfaces import Preconditioner
from genkit.settings import setting
from genkit.types import Coefficients
from genkit_edm.vp import VpTime


@dataclass(frozen=True, kw_only=True)
class VpPreconditioner(Preconditioner):
    """The network predicts the noise, and is told the time of the VP process."""

    source = "EDM, arXiv 2206.00364, table 1, column VP; Song et al., arXiv 2011.13456"

    beta_d: float = setting(19.9, doc="how much beta grows from time 0 to 1", above=0)
    beta_min: float = setting(0.1, doc="beta at time 0", above=0)
    m: int = setting(1000, doc="number of times of the discrete process", at_least=2)
    eps_t: float = setting(1e-5, doc="least time of training", above=0, below=1)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        return Coefficients(
            c_skip=torch.ones_like(sigma),
            c_out=-sigma,
            c_in=(1 + sigma.square()).rsqrt(),
            c_noise=(self.m - 1) * self._times.time(sigma),
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``: the loss is that of the predicted noise."""
        return 1 / sigma.square()

    def sigma_range(self) -> tuple[float, float]:
        return self._times.level(self.eps_t), self._times.level(1.0)

    @property
    def _times(self) -> VpTime:
        return VpTime(self.beta_d, self.beta_min)
