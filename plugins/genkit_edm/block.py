"""The residual block of the U-Nets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.dropout import Dropout
from genkit_edm.family import Family
from genkit_edm.layers import Attention, group_norm
from genkit_edm.winograd import Conv3x3


class Block(nn.Module):
    """Two convolutions with the condition between them, a shortcut, then attention.

    Args:
        channels_in: of the input.
        channels_out: of the result.
        family: what sets the kinds of U-Net apart.
        condition: width of the conditioning vector.
        dropout: probability that an element is dropped before the second convolution.
        resampling: halves or doubles height and width; None keeps them.
        attention: end with self-attention, where the family has it at this width.
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
        """Return ``[B, channels_out, H', W']``.

        Args:
            x: ``[B, channels_in, H, W]``.
            condition: ``[B, condition]``.
        """
        h = self.conv0(self.resampling(F.silu(self.norm0(x))))
        told = self.affine(condition)[:, :, None, None]
        if self.scales_and_shifts:
            scale, shift = told.chunk(2, dim=1)
            h = torch.addcmul(shift, self.norm1(h), scale + 1)
        else:
            h = self.norm1(h + told)
        h = self.conv1(self.dropout(F.silu(h)))
        result: Tensor = self.attention((h + self.skip(self.resampling(x))) * self.skip_scale)
        return result
