"""The layers of the ADM encoder: residual block, self-attention and attention pooling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_PER_HEAD = 64
GROUPS = 32


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group normalization with 32 groups."""
    return nn.GroupNorm(GROUPS, channels)


def zero(layer: nn.Module) -> nn.Module:
    """Set all parameters of a layer to 0, so that a branch that ends with it is 0 at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def attend(qkv: Tensor, *, by_head: bool) -> Tensor:
    """Return multi-head attention over positions, ``[B, C, N]``.

    Args:
        qkv: ``[B, 3 C, N]`` queries, keys and values.
        by_head: whether the channels are ordered by head, each with its queries, keys and values.
            Otherwise all queries come first, then all keys, then all values.
    """
    batch, channels, positions = qkv.shape
    heads = channels // (3 * CHANNELS_PER_HEAD)
    if by_head:
        split = qkv.view(batch, heads, 3, CHANNELS_PER_HEAD, positions).transpose(1, 2)
    else:
        split = qkv.view(batch, 3, heads, CHANNELS_PER_HEAD, positions)
    query, key, value = split.transpose(-1, -2).unbind(1)
    mixed = F.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(-1, -2).reshape(batch, channels // 3, positions)


class SelfAttention(nn.Module):
    """Multi-head self-attention over all pixels, with a residual connection.

    Args:
        channels: channels of input and output, a multiple of 64.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``[B, channels, H, W]`` for features of the same shape."""
        flat = x.flatten(2)
        branch: Tensor = self.out(attend(self.qkv(self.norm(flat)), by_head=True))
        return (flat + branch).view_as(x)


class Residual(nn.Module):
    """A residual block of two convolutions; between them, the condition sets a scale and a shift.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        condition: width of the conditioning vector.
        dropout: probability that an element is dropped before the second convolution.
        halves: whether the block halves height and width.
    """

    def __init__(
        self, channels_in: int, channels_out: int, condition: int, dropout: float, *, halves: bool
    ) -> None:
        super().__init__()
        self.halves = halves
        self.norm0 = group_norm(channels_in)
        self.conv0 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.affine = nn.Linear(condition, 2 * channels_out)
        self.norm1 = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = zero(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        same = channels_in == channels_out
        self.skip = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return features ``[B, channels_out, H', W']``; H' and W' are halved if ``halves``.

        Args:
            x: ``[B, channels_in, H, W]`` features.
            condition: ``[B, condition]`` embedded noise level and class.
        """
        hidden = F.silu(self.norm0(x))
        if self.halves:
            hidden, x = F.avg_pool2d(hidden, 2), F.avg_pool2d(x, 2)
        hidden = self.conv0(hidden)
        scale, shift = self.affine(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
        hidden = F.silu(self.norm1(hidden) * (1 + scale) + shift)
        result: Tensor = self.skip(x) + self.conv1(self.dropout(hidden))
        return result


class AttentionPool(nn.Module):
    """Attention pooling: the query is the mean of all pixels, at an additional position.

    Source: CLIP, arXiv 2103.00020, section 2.4.

    Args:
        size: height and width of the features.
        channels: channels of the features, a multiple of 64.
        outputs: number of outputs.
    """

    def __init__(self, size: tuple[int, int], channels: int, outputs: int) -> None:
        super().__init__()
        positions = 1 + math.prod(size)
        self.positions = nn.Parameter(torch.randn(channels, positions) / math.sqrt(channels))
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return outputs ``[B, outputs]`` for features ``[B, channels, H, W]``."""
        flat = x.flatten(2)
        flat = torch.cat([flat.mean(dim=2, keepdim=True), flat], dim=2) + self.positions
        pooled: Tensor = self.out(attend(self.qkv(flat), by_head=False)[:, :, :1])
        return pooled.squeeze(2)
