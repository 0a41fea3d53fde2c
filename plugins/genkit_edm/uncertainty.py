"""Denoisers that learn, along with the image, how large their loss is at each noise level."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genkit.denoiser import Preconditioned
from genkit.interfaces import Denoiser, Preconditioner
from genkit.types import DataSpec
from genkit_edm.edm2_layers import MPFourier, MPLinear

FEATURES = 128
"""Of the noise level, from which its uncertainty is told."""


class Uncertain(Preconditioned):
    """A preconditioned network with u(sigma), the logarithm of its loss (EDM2, eq. 21).

    Sampling has no use for u; it is saved with the network so that training can go on.

    Args:
        network: see :class:`~genkit.denoiser.Preconditioned`.
        preconditioner: likewise.
    """

    def __init__(self, network: nn.Module, preconditioner: Preconditioner) -> None:
        super().__init__(network, preconditioner)
        self.uncertainty_features = MPFourier(FEATURES)
        self.uncertainty_linear = MPLinear(FEATURES, 1)

    def uncertainty(self, sigma: Tensor) -> Tensor:
        """Return u, ``[B]`` float32, for noise levels ``[B]``."""
        c_noise = self.preconditioner.coefficients(sigma).c_noise
        with torch.autocast(sigma.device.type, enabled=False):
            told: Tensor = self.uncertainty_linear(self.uncertainty_features(c_noise))
        return told.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class UncertainDenoiser(Denoiser):
    """A denoiser that knows how uncertain it is at each noise level, such as edm2.

    The module that ``build`` returns has ``uncertainty(sigma [B]) -> [B]`` besides.
    """

    @abstractmethod
    def build_network(self, spec: DataSpec) -> nn.Module: ...

    def build(self, spec: DataSpec) -> Uncertain:
        return Uncertain(self.build_network(spec), self.preconditioner)
