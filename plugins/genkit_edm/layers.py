"""The layers of the U-Nets: convolution with resampling, group normalisation, attention."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.initialization import xavier

Resample = Literal["none", "up", "down"]


class Conv(nn.Module):
    """A convolution that may first double or halve height and width.

    Args:
        channels_in: of the input.
        channels_out: of the result.
        kernel: odd width of the square kernel; the size is kept.
        resample: ``up`` repeats each pixel, ``down`` averages 2x2 pixels.
        gain: scale of the initial weights.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        resample: Resample = "none",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.conv = xavier(nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2), gain)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, channels_out, H', W']`` for ``[B, channels_in, H, W]``."""
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif self.resample == "down":
            x = F.avg_pool2d(x, 2)
        result: Tensor = self.conv(x)
        return result


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a normalisation over at most 32 groups of at least 4 channels each."""
    groups = max(g for g in range(1, min(32, channels // 4) + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


class Attention(nn.Module):
    """Self-attention of one head over all pixels, added to its input.

    Args:
        channels: of input and result.
        skip_scale: factor of the sum.
    """

    def __init__(self, channels: int, skip_scale: float) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = xavier(nn.Conv2d(channels, 3 * channels, 1), gain=math.sqrt(0.2))
        self.proj = xavier(nn.Conv2d(channels, channels, 1), gain=1e-5)
        self.skip_scale = skip_scale

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, H, W]`` for ``[B, C, H, W]``."""
        pixels = self.qkv(self.norm(x)).flatten(2).transpose(1, 2)  # [B, H W, 3 C]
        q, k, v = pixels.unsqueeze(1).chunk(3, dim=-1)  # each [B, 1, H W, C]
        mixed = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        branch: Tensor = self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return (x + branch) * self.skip_scale
