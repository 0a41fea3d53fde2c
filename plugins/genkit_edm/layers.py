"""The layers of the U-Nets: group normalisation and attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.family import Family


def group_norm(channels: int, eps: float) -> nn.GroupNorm:
    """Return a normalisation over at most 32 groups of at least 4 channels each."""
    groups = max(g for g in range(1, min(32, channels // 4) + 1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=eps)


class Attention(nn.Module):
    """Self-attention over all pixels, added to its input.

    Args:
        channels: of input and result, divisible by ``family.heads(channels)``.
        family: how many heads, and how to start and to add.
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
        """Return ``[B, C, H, W]`` for ``[B, C, H, W]``."""
        # Fused attention wants the channels of a pixel side by side, as channels-last has them.
        pixels = self.qkv(self.norm(x)).flatten(2).transpose(1, 2).contiguous()  # [B, H W, 3 C]
        heads = pixels.view(*pixels.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind()  # each [B, heads, H W, C / heads]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)  # [B, H W, C]
        branch: Tensor = self.proj(mixed.transpose(1, 2).view(x.shape))
        return (x + branch) * self.skip_scale
