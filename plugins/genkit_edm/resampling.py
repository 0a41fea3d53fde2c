"""Halving and doubling the size of feature maps with a separable filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def filter_kernel(taps: Sequence[float]) -> Tensor:
    """Return the outer product of the taps, of sum 1, ``[n, n]``."""
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line) / line.sum().square()


class Resampling(nn.Module):
    """A filter that slides over each channel alone; beyond the border everything is 0.

    Args:
        taps: of the filter along one dimension, an even number of them; ``(1, 1)`` is the box.
        padded: the result has exactly half or twice the size; else only what no border touches.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float], *, padded: bool = True) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.is_box = len(taps) == 2 and taps[0] == taps[1]
        self.padding = (len(taps) - 1) // 2 if padded else 0
        self.register_buffer("kernel", filter_kernel(taps), persistent=False)

    def per_channel(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Return the weights of a convolution with a group for each channel of ``x``."""
        kernel = (self.kernel * gain).to(x.dtype)
        return kernel.expand(x.shape[1], 1, *kernel.shape)


class Downsampling(Resampling):
    """Halves height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, H / 2, W / 2]`` for ``[B, C, H, W]``."""
        if self.is_box:
            return F.avg_pool2d(x, 2)
        return F.conv2d(x, self.per_channel(x), stride=2, padding=self.padding, groups=x.shape[1])


class Upsampling(Resampling):
    """Doubles height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, 2 H, 2 W]`` for ``[B, C, H, W]``."""
        if self.is_box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.conv_transpose2d(
            x, self.per_channel(x, 4.0), stride=2, padding=self.padding, groups=x.shape[1]
        )
