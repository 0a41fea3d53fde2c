"""The layers of the U-Nets: dropout, resampling, attention and the residual block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit.tensors import constant
from genkit_edm.unet.family import Family
from genkit_edm.unet.winograd import Conv3x3

LEVELS = 2**16
"""Number of values of a 16-bit integer; dropout probabilities are rounded to 1 / LEVELS."""


class Dropout(nn.Module):
    """Sets random elements to 0 in training, and scales the others to keep the mean.

    On the CPU, torch draws one random number per element on a single core. Here four elements share
    a 64-bit draw, which makes a whole training step about 3 % faster.

    Args:
        probability: probability that an element is dropped.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, with elements dropped in training mode."""
        if not self.training or not self.probability:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.probability)
        below = min(round(self.probability * LEVELS), LEVELS - 1)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: x.numel()]
        mask = torch.empty_like(x)
        # In memory order, which avoids a copy of channels-last tensors.
        mask.as_strided((x.numel(),), (1,)).copy_(bits >= below - LEVELS // 2)
        return x * mask.mul_(LEVELS / (LEVELS - below))


def make_kernel(taps: Sequence[float]) -> Tensor:
    """Return the outer product of the taps, ``[n, n]``, normalized to sum 1."""
    line = torch.tensor(taps, dtype=torch.float32, device="cpu")
    return constant(torch.outer(line, line) / line.sum().square())


class Resampling(nn.Module):
    """A separable filter applied to each channel, with zeros beyond the border.

    Args:
        taps: even number of taps of the filter along one dimension; ``(1, 1)`` is a box filter.
        padded: whether the output has exactly half or twice the size of the input. Otherwise the
            filter is applied only where it lies inside the input.
    """

    kernel: Tensor

    def __init__(self, taps: Sequence[float], *, padded: bool = True) -> None:
        super().__init__()
        self.taps = tuple(taps)
        self.is_box = len(taps) == 2 and taps[0] == taps[1]
        self.padding = (len(taps) - 1) // 2 if padded else 0
        self.register_buffer("kernel", make_kernel(taps), persistent=False)

    def per_channel(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Return the weights of a depthwise convolution of ``x``, multiplied by ``gain``."""
        kernel = (self.kernel * gain).to(x.dtype)
        return kernel.expand(x.shape[1], 1, *kernel.shape)


class Downsampling(Resampling):
    """Halves height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[B, C, H / 2, W / 2]`` for features ``[B, C, H, W]``."""
        if self.is_box:
            return F.avg_pool2d(x, 2)
        return F.conv2d(x, self.per_channel(x), stride=2, padding=self.padding, groups=x.shape[1])


class Upsampling(Resampling):
    """Doubles height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[B, C, 2 H, 2 W]`` for features ``[B, C, H, W]``."""
        if self.is_box:
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return F.conv_transpose2d(
            x, self.per_channel(x, 4.0), stride=2, padding=self.padding, groups=x.shape[1]
        )


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return a group normalization with at most 32 groups of at least 4 channels."""
    groups = max(g for g in range(1, min(32, channels // 4) + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=eps)


class Attention(nn.Module):
    """Self-attention over all pixels, with a residual connection.

    Args:
        channels: channels of input and output, divisible by ``family.heads(channels)``.
        family: family of the U-Net.
    """

    def __init__(self, channels: int, family: Family) -> None:
        super().__init__()
        start = family.initialization
        self.heads = family.heads(channels)
        self.skip_scale = family.skip_scale
        self.norm = group_norm(channels, family.eps)
        self.qkv = start.attention(nn.Conv2d(channels, 3 * channels, 1))
        self.proj = start.last(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of ``x``, ``[B, C, H, W]``."""
        # Fused attention requires the channels of a pixel to be contiguous, as in channels-last.
        pixels = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # [B, H W, 3 C]
        heads = pixels.view(*pixels.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()  # each [B, heads, H W, C / heads]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, H W, C]
        branch: Tensor = self.proj(mixed.transpose(1, 2).view(x.shape))
        return (x + branch) * self.skip_scale


class Block(nn.Module):
    """A residual block: two conditioned convolutions and a shortcut, then attention.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        family: family of the U-Net.
        condition: width of the conditioning vector.
        dropout: probability that an element is dropped before the second convolution.
        resampling: module that halves or doubles height and width; None to keep the size.
        attention: whether the block ends with self-attention, if the width suffices for a head.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        family: Family,
        *,
        condition: int,
        dropout: float,
        resampling: nn.Module | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__()
        start = family.initialization
        self.scales_and_shifts = family.scales_and_shifts
        self.skip_scale = family.skip_scale
        self.resampling = resampling or nn.Identity()
        self.norm0 = group_norm(channels_in, family.eps)
        self.conv0 = start.usual(Conv3x3(channels_in, channels_out))
        parts = 2 if family.scales_and_shifts else 1
        self.affine = start.usual(nn.Linear(condition, parts * channels_out))
        self.norm1 = group_norm(channels_out, family.eps)
        self.dropout = Dropout(dropout)
        self.conv1 = start.last(Conv3x3(channels_out, channels_out))
        projects = channels_in != channels_out or (
            resampling is not None and family.projects_resampled
        )
        self.skip = (
            start.usual(nn.Conv2d(channels_in, channels_out, 1)) if projects else nn.Identity()
        )
        attends = attention and family.heads(channels_out) > 0
        self.attention = Attention(channels_out, family) if attends else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the features ``[B, channels_out, H', W']``.

        Args:
            x: ``[B, channels_in, H, W]`` features.
            condition: ``[B, condition]`` conditioning vectors.
        """
        h = self.conv0(self.resampling(F.silu(self.norm0(x))))
        modulation = self.affine(condition)[:, :, None, None]
        if self.scales_and_shifts:
            scale, shift = modulation.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + modulation)
        h = self.conv1(self.dropout(F.silu(h)))
        result: Tensor = self.attention((h + self.skip(self.resampling(x))) * self.skip_scale)
        return result
