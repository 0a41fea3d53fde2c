"""EDM's preconditioning: input and target of the raw network have unit variance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.interfaces import Preconditioner
from genkit.settings import setting
from genkit.types import Coefficients


@dataclass(frozen=True, kw_only=True)
class EdmPreconditioner(Preconditioner):
    """Scales the network so that its input and its target have unit variance at every level."""

    source = "EDM, arXiv 2206.00364, eq. 7 and table 1"

    sigma_data: float = setting(0.5, doc="standard deviation of the data", above=0)

    def coefficients(self, sigma: Tensor) -> Coefficients:
        total = (sigma.square() + self.sigma_data**2).sqrt()
        return Coefficients(
            c_skip=self.sigma_data**2 / total.square(),
            c_out=sigma * self.sigma_data / total,
            c_in=1 / total,
            c_noise=sigma.log() / 4,
        )

    def weight(self, sigma: Tensor) -> Tensor:
        """Return ``1 / c_out^2``: every noise level starts with the same expected loss."""
        return (sigma.square() + self.sigma_data**2) / (sigma * self.sigma_data).square()
