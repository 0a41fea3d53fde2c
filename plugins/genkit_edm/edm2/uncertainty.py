"""EDM2's learned weighting of noise levels by uncertainty: networks and loss."""

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
"""Number of Fourier features from which u(sigma) is predicted, as in EDM2."""


class Uncertain(Preconditioned):
    """A preconditioned network that also predicts u(sigma), the log of its loss (EDM2, eq. 21).

    Sampling does not use u. The weights for u are saved with the network so that training can be
    resumed.

    Args:
        network: raw network, see :class:`~genkit.interfaces.Preconditioned`.
        preconditioner: its preconditioner.
    """

    def __init__(self, network: nn.Module, preconditioner: Preconditioner) -> None:
        super().__init__(network, preconditioner)
        self.uncertainty_features = MPFourier(FEATURES)
        self.uncertainty_linear = MPLinear(FEATURES, 1)

    def uncertainty(self, sigma: Tensor) -> Tensor:
        """Return u, ``[B]`` float32, for noise levels ``[B]``."""
        c_noise = self.preconditioner.coefficients(sigma).c_noise
        with torch.autocast(sigma.device.type, enabled=False):
            u: Tensor = self.uncertainty_linear(self.uncertainty_features(c_noise))
        return u.squeeze(1)


@dataclass(frozen=True, kw_only=True)
class UncertainDenoiser(Denoiser):
    """A denoiser that predicts its uncertainty at each noise level, such as edm2.

    The module that ``build`` returns also has the method ``uncertainty(sigma [B]) -> [B]``.
    """

    @abstractmethod
    def build_network(self, spec: DataSpec) -> nn.Module: ...

    def build(self, spec: DataSpec) -> Uncertain:
        return Uncertain(self.build_network(spec), self.preconditioner)


@dataclass(frozen=True, kw_only=True)
class UncertaintyDenoising(Denoising):
    """Computes the denoising loss ``L / exp(u(sigma)) + u(sigma)``, with u learned jointly.

    For the optimal u, ``exp(u)`` is the expected loss at a noise level, so that all levels
    contribute equally to the gradient throughout training. The loss may be negative. EDM2 trains
    with ``p_mean = -0.4, p_std = 1.0``.
    """

    source = "EDM2, arXiv 2312.02696, eq. 21"
    trains = UncertainDenoiser
    estimates_mean = False  # the minimal loss depends on u

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        u = cast(Uncertain, model).uncertainty(self.noise_distribution.levels(batch))
        return super().loss(model, batch, noise, generator) / u.exp() + u
