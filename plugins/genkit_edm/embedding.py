"""A noise level as sines and cosines of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def waves(phase: Tensor) -> Tensor:
    """Return sines, then cosines, ``[B, 2 n]``, of phases ``[B, n]``."""
    return torch.cat([phase.sin(), phase.cos()], dim=1)


class PositionalEmbedding(nn.Module):
    """Waves of ``c_noise`` at frequencies from 1 down to 1 / 10000.

    Source: DDPM, arXiv 2006.11239, after the Transformer, arXiv 1706.03762, section 3.5.

    Args:
        width: of the embedding; an odd one is rounded down.
        endpoint: 1 / 10000 is the last frequency; else the one that would follow it.
    """

    frequencies: Tensor

    def __init__(self, width: int, *, endpoint: bool) -> None:
        super().__init__()
        count = width // 2
        self.width = 2 * count
        exponents = torch.arange(count, dtype=torch.float32) / max(count - endpoint, 1)
        self.register_buffer("frequencies", (1 / 10_000) ** exponents, persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        return waves(c_noise.float()[:, None] * self.frequencies)


class FourierEmbedding(nn.Module):
    """Waves of ``c_noise`` at random frequencies, which are part of the weights but not trained.

    Source: Song et al., arXiv 2011.13456, appendix H, after arXiv 2006.10739.

    Args:
        width: of the embedding; an odd one is rounded down.
        scale: standard deviation of the frequencies, in periods a unit.
    """

    freqs: Tensor

    def __init__(self, width: int, scale: float = 16.0) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        self.register_buffer("freqs", torch.randn(width // 2) * scale)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        return waves(c_noise.float()[:, None] * (2 * math.pi * self.freqs))


class OctaveEmbedding(nn.Module):
    """Waves of ``c_noise`` at 1/8 to 8 periods a unit, spaced geometrically.

    EDM's ``c_noise = log(sigma) / 4`` spans about 3 units, in which the positional embedding is
    little more than a straight line; these frequencies resolve it.

    Source: Fourier features, arXiv 2006.10739, section 5.

    Args:
        width: of the embedding; an odd one is rounded down.
    """

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = 2 * (width // 2)
        periods = torch.logspace(-3, 3, width // 2, base=2, dtype=torch.float64)
        self.register_buffer("frequencies", (2 * math.pi * periods).float(), persistent=False)

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return ``[B, width]`` for ``c_noise`` ``[B]``."""
        return waves(c_noise.float()[:, None] * self.frequencies)


NoiseEmbedding = PositionalEmbedding | FourierEmbedding | OctaveEmbedding
