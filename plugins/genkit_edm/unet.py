"""The U-Net of DDPM++: residual blocks at halved sizes, and back up with skip connections."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.conditioning import Conditioning
from genkit_edm.initialization import xavier
from genkit_edm.layers import Attention, Conv, Resample, group_norm

SKIP_SCALE = math.sqrt(0.5)
"""Keeps the variance of a sum of two branches."""


class Block(nn.Module):
    """A residual block: two convolutions, the condition added between them, then attention.

    Args:
        channels_in: of the input.
        channels_out: of the result.
        condition: width of the conditioning vector.
        dropout: probability that an element is dropped before the second convolution.
        resample: double or halve height and width.
        attention: end with self-attention.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        condition: int,
        dropout: float,
        resample: Resample = "none",
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm0 = group_norm(channels_in)
        self.conv0 = Conv(channels_in, channels_out, 3, resample)
        self.affine = xavier(nn.Linear(condition, channels_out))
        self.norm1 = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = Conv(channels_out, channels_out, 3, gain=1e-5)
        same = channels_in == channels_out and resample == "none"
        self.skip = nn.Identity() if same else Conv(channels_in, channels_out, 1, resample)
        self.attention = Attention(channels_out, SKIP_SCALE) if attention else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return ``[B, channels_out, H', W']``.

        Args:
            x: ``[B, channels_in, H, W]``.
            condition: ``[B, condition]``.
        """
        h = self.conv0(F.silu(self.norm0(x))) + self.affine(condition)[:, :, None, None]
        h = self.conv1(self.dropout(F.silu(self.norm1(h))))
        result: Tensor = self.attention((h + self.skip(x)) * SKIP_SCALE)
        return result


class UNet(nn.Module):
    """Source: Song et al., arXiv 2011.13456 (DDPM++), as EDM, arXiv 2206.00364, table 7 lays out.

    Args:
        shape: ``(channels, height, width)`` of an image; height and width divisible by
            ``2 ** (len(channel_mult) - 1)``.
        conditioning: makes one vector of noise level and class.
        channels: unit of width.
        channel_mult: width of each level in that unit, the full size first.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: heights of the feature maps that have self-attention.
        dropout: probability that an element is dropped in a block.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        conditioning: Conditioning,
        *,
        channels: int,
        channel_mult: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        dropout: float,
    ) -> None:
        super().__init__()
        block = partial(Block, condition=conditioning.width, dropout=dropout)
        levels = [(channels * mult, shape[1] >> i) for i, mult in enumerate(channel_mult)]
        self.conditioning = conditioning

        width = channels
        self.stem = Conv(shape[0], width, 3)
        skips = [width]
        self.encoder = nn.ModuleList()
        for level, (level_width, height) in enumerate(levels):
            if level > 0:
                self.encoder.append(block(width, width, resample="down"))
                skips.append(width)
            for _ in range(blocks):
                self.encoder.append(block(width, level_width, attention=height in attention))
                width = level_width
                skips.append(width)

        self.middle = nn.ModuleList([block(width, width, attention=True), block(width, width)])

        self.decoder = nn.ModuleList()
        for level, (level_width, height) in reversed(list(enumerate(levels))):
            if level < len(levels) - 1:
                self.decoder.append(block(width, width, resample="up"))
            for index in range(blocks + 1):
                attends = index == blocks and height in attention
                self.decoder.append(block(width + skips.pop(), level_width, attention=attends))
                width = level_width
        self.out_norm = group_norm(width)
        self.out = Conv(width, shape[0], 3, gain=1e-5)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``F(x; c_noise)``, of the shape of ``x``.

        Args:
            x: ``[B, channels, height, width]`` scaled noisy images.
            c_noise: ``[B]`` noise levels, as the preconditioner passes them.
            labels: ``[B]`` int64 classes; ignored by an unconditional network.
        """
        condition = self.conditioning(c_noise, labels)
        x = self.stem(x)
        skips = [x]
        for block in self.encoder:
            x = block(x, condition)
            skips.append(x)
        for block in self.middle:
            x = block(x, condition)
        for block in self.decoder:
            if block.resample != "up":
                x = torch.cat([x, skips.pop()], dim=1)
            x = block(x, condition)
        result: Tensor = self.out(F.silu(self.out_norm(x)))
        return result
