"""Noise levels weighted by what is left to learn there: networks and loss of EDM2."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from genkit.interfaces import Denoiser, Preconditioned, Preconditioner
from genkit.types import Batch, DataSpec
from genkit_edm.denoising import Denoising
from genkit_edm.edm2.layers import MPFourier, MPLinear

FEATURES = 128
"""Of the noise level, from which its uncertainty is told."""


class Uncertain(Preconditioned):
    """A preconditioned network with u(sigma), the logarithm of its loss (EDM2, eq. 21).

    Sampling has no use for u; it is saved with the network so that training can go on.

    Args:
        network: see :class:`~genkit.interfaces.Preconditioned`.
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


@dataclass(frozen=True, kw_only=True)
class UncertaintyDenoising(Denoising):
    """The denoising loss ``L / exp(u(sigma)) + u(sigma)``, with u learned along with the network.

    For the u that is best, ``exp(u)`` is the expected loss at that noise level: all levels then
    contribute alike to the gradient, at any time of training. The value itself falls below 0.
    EDM2 trains at noise levels of ``p_mean = -0.4, p_std = 1.0``.
    """

    source = "EDM2, arXiv 2312.02696, eq. 21"
    trains = UncertainDenoiser
    estimates_mean = False  # the lowest loss changes with u, so that there is no one bound

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        u = cast(Uncertain, model).uncertainty(self.noise_distribution.levels(batch))
        return super().loss(model, batch, noise, generator) / u.exp() + u
