"""Embedding of noise level and class for a discriminator."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError
from genkit.parts.vp_sde import VpSde

FREQUENCIES = 32
"""Number of frequencies in the embedding of the noise level; chosen, not tuned."""


class Condition(nn.Module):
    """Embeds the noise level, as a VP time, and the class.

    Args:
        width: width of the embedding.
        classes: number of classes; 0 for an unconditional discriminator.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.noise = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(classes, width) if classes else None

    def forward(self, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Return the embedding, ``[B, width]``.

        Raises:
            DataError: labels are None, but the discriminator is class-conditional.
        """
        embedded: Tensor = self.noise(_sines_and_cosines(1000 * VpSde().time(sigma)))
        if self.label is not None:
            if labels is None:
                raise DataError(
                    "labels are required by a class-conditional discriminator, got None; sample a "
                    "class-conditional denoiser",
                    Code.MISSING_ATTRIBUTE,
                )
            embedded = embedded + self.label(labels)
        return nn.functional.silu(embedded)


def _sines_and_cosines(position: Tensor) -> Tensor:
    """Embed positions ``[B]`` at periods from 2 pi to 20,000 pi as ``[B, 2 F]``."""
    powers = torch.arange(FREQUENCIES, device=position.device) / FREQUENCIES
    angles = position[:, None] * torch.exp(-math.log(10_000) * powers)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
