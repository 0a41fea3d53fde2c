"""EDM2's magnitude-preserving U-Net (arXiv 2312.02696, appendix B, config G)."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.edm2.layers import (
    CosineAttention,
    MPConv,
    MPFourier,
    MPLinear,
    mp_cat,
    mp_silu,
    mp_sum,
    to_unit_rms,
)
from genkit_edm.unet.conditioning import ClassEmbedding

BRANCH_SHARE = 0.3
"""Of the residual branch, and of attention, in the sum with the main path."""

LABEL_SHARE = 0.5
"""Of the class in the sum with the noise level."""

GREATEST_ACTIVATION = 256.0
"""Beyond it activations are clipped, so that float16 can hold what is computed of them."""

Resample = Literal["none", "up", "down"]
Side = Literal["encoder", "decoder"]


class Embedding(nn.Module):
    """Noise level and class as one vector, in float32 under autocast too.

    Args:
        noise_width: number of Fourier features of the noise level.
        width: of the result.
        classes: number of classes; 0 ignores labels.
        label_dropout: probability that an item's class is hidden in training.
    """

    def __init__(self, noise_width: int, width: int, classes: int, label_dropout: float) -> None:
        super().__init__()
        self.width = width
        self.fourier = MPFourier(noise_width)
        self.noise = MPLinear(noise_width, width)
        # Of a one-hot vector times sqrt(classes) every element has unit mean square.
        self.label = (
            ClassEmbedding(MPLinear(classes, width), math.sqrt(classes), label_dropout)
            if classes
            else None
        )

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return ``[B, width]`` float32.

        Args:
            c_noise: ``[B]`` noise levels, as the preconditioner passes them.
            labels: ``[B]`` int64 classes, ``[B, classes]`` float weights, or None.

        Raises:
            DataError: labels do not fit the network.
        """
        with torch.autocast(c_noise.device.type, enabled=False):
            embedded = self.noise(self.fourier(c_noise))
            if self.label is not None:
                embedded = mp_sum(embedded, self.label(labels, len(c_noise)), LABEL_SHARE)
            return mp_silu(embedded)


class Block(nn.Module):
    """A residual block, scaled channel by channel by the embedding, then attention.

    Args:
        channels_in: of the input.
        channels_out: of the result.
        side: an ``encoder`` block normalises the main path pixel by pixel; in a ``decoder`` block
            the residual branch starts from what the skip connection brought.
        embedding: width of the embedding.
        dropout: probability that an element is dropped before the second convolution.
        resample: double or halve height and width first.
        heads: of self-attention at the end; 0 for none.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        side: Side,
        *,
        embedding: int,
        dropout: float,
        resample: Resample = "none",
        heads: int = 0,
    ) -> None:
        super().__init__()
        self.side = side
        self.resample = resample
        self.skip = MPConv(channels_in, channels_out, 1) if channels_in != channels_out else None
        start = channels_out if side == "encoder" else channels_in
        self.conv0 = MPConv(start, channels_out, 3)
        self.scale = MPLinear(embedding, channels_out)
        self.scale_gain = nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)
        self.conv1 = MPConv(channels_out, channels_out, 3)
        self.attention = CosineAttention(channels_out, heads, BRANCH_SHARE) if heads else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return ``[B, channels_out, H', W']``.

        Args:
            x: ``[B, channels_in, H, W]``.
            embedded: ``[B, embedding]``.
        """
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        elif self.resample == "down":
            x = F.avg_pool2d(x, 2)
        if self.side == "encoder":
            x = to_unit_rms(self._main(x), 1)
        branch = self._residual(x, embedded)
        if self.side == "decoder":
            x = self._main(x)
        x = mp_sum(x, branch, BRANCH_SHARE)
        if self.attention is not None:
            x = self.attention(x)
        return x.clamp(-GREATEST_ACTIVATION, GREATEST_ACTIVATION)

    def _main(self, x: Tensor) -> Tensor:
        return x if self.skip is None else self.skip(x)

    def _residual(self, x: Tensor, embedded: Tensor) -> Tensor:
        y = self.conv0(mp_silu(x))
        scale = 1 + self.scale(embedded, self.scale_gain)
        y = mp_silu(y * scale[:, :, None, None].to(y.dtype))
        result: Tensor = self.conv1(self.dropout(y))
        return result


class Edm2UNet(nn.Module):
    """Blocks at halved sizes, and back up with skip connections.

    Args:
        shape: ``(channels, height, width)`` of an image; height and width divisible by
            ``2 ** (len(channel_mult) - 1)``.
        channels: unit of width.
        channel_mult: width of each level in that unit, the full size first.
        blocks: blocks of a level on the way down; one more on the way up.
        attention: heights of the feature maps that have self-attention.
        channels_per_head: of attention; divides the width of levels that have it.
        dropout: probability that an element is dropped in a block.
        classes: number of classes; 0 ignores labels.
        label_dropout: probability that an item's class is hidden in training.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        channels: int,
        channel_mult: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        channels_per_head: int,
        dropout: float,
        classes: int,
        label_dropout: float,
    ) -> None:
        super().__init__()
        levels = [(channels * mult, shape[1] >> i) for i, mult in enumerate(channel_mult)]
        widest = max(width for width, _ in levels)
        self.embedding = Embedding(levels[0][0], widest, classes, label_dropout)
        block = partial(Block, embedding=widest, dropout=dropout)

        def heads(width: int, height: int) -> int:
            return width // channels_per_head if height in attention else 0

        width = levels[0][0]
        self.stem = MPConv(shape[0] + 1, width, 3)
        skips = [width]
        self.encoder = nn.ModuleList()
        for level, (level_width, height) in enumerate(levels):
            if level > 0:
                self.encoder.append(block(width, width, "encoder", resample="down"))
                skips.append(width)
            for _ in range(blocks):
                attends = heads(level_width, height)
                self.encoder.append(block(width, level_width, "encoder", heads=attends))
                width = level_width
                skips.append(width)

        attends = width // channels_per_head
        self.middle = nn.ModuleList(
            [block(width, width, "decoder", heads=attends), block(width, width, "decoder")]
        )

        self.decoder = nn.ModuleList()
        for level, (level_width, height) in reversed(list(enumerate(levels))):
            if level < len(levels) - 1:
                self.decoder.append(block(width, width, "decoder", resample="up"))
            for _ in range(blocks + 1):
                attends = heads(level_width, height)
                joined = width + skips.pop()
                self.decoder.append(block(joined, level_width, "decoder", heads=attends))
                width = level_width
        self.out = MPConv(width, shape[0], 3)
        self.out_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return ``F(x; c_noise)``, of the shape of ``x``.

        Args:
            x: ``[B, channels, height, width]`` scaled noisy images.
            c_noise: ``[B]`` noise levels, as the preconditioner passes them.
            labels: ``[B]`` int64 classes, ``[B, classes]`` float weights, or None.
        """
        embedded = self.embedding(c_noise, labels)
        x, skips = self._encoded(x, embedded)
        for block in self.decoder:
            if block.resample != "up":
                x = mp_cat(x, skips.pop())
            x = block(x, embedded)
        result: Tensor = self.out(x, self.out_gain)
        return result

    def encode(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the features ``[B, C, h, w]`` at the lowest resolution; see :meth:`forward`."""
        return self._encoded(x, self.embedding(c_noise, labels))[0]

    def _encoded(self, x: Tensor, embedded: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features at the lowest resolution, and those that the decoder takes."""
        # A channel of ones does what biases would.
        x = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for block in self.encoder:
            x = block(x, embedded)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedded)
        return x, skips
