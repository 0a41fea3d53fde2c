"""EDM2's loss: every noise level is weighted by what is left to learn there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from genkit.types import Batch
from genkit_edm.denoising import Denoising
from genkit_edm.uncertainty import Uncertain, UncertainDenoiser


@dataclass(frozen=True, kw_only=True)
class UncertaintyDenoising(Denoising):
    """The denoising loss ``L / exp(u(sigma)) + u(sigma)``, with u learned along with the network.

    For the u that is best, ``exp(u)`` is the expected loss at that noise level: all levels then
    contribute alike to the gradient, at any time of training. The value itself falls below 0.
    EDM2 trains at noise levels of ``p_mean = -0.4, p_std = 1.0``.
    """

    source = "EDM2, arXiv 2312.02696, eq. 21"
    trains = UncertainDenoiser

    def loss(
        self,
        model: nn.Module,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        u = cast(Uncertain, model).uncertainty(self.sigma_distribution.levels(batch))
        return super().loss(model, batch, noise, generator) / u.exp() + u
