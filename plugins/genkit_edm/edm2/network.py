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
"""Weight of the residual branch, and of attention, in the sum with the main path (EDM2)."""

LABEL_SHARE = 0.5
"""Weight of the class in the sum with the noise level (EDM2)."""

MAX_ACTIVATION = 256.0
"""Absolute value to which activations are clipped, as in EDM2, to prevent overflow in float16."""

Resample = Literal["none", "up", "down"]
Side = Literal["encoder", "decoder"]


class Embedding(nn.Module):
    """Embeds noise level and class as one vector, in float32 even under autocast.

    Args:
        noise_width: number of Fourier features of the noise level.
        width: width of the vector.
        classes: number of classes; if it is 0, labels are ignored.
        label_dropout: probability that an item's label is dropped in training.
    """

    def __init__(self, noise_width: int, width: int, classes: int, label_dropout: float) -> None:
        super().__init__()
        self.width = width
        self.fourier = MPFourier(noise_width)
        self.noise = MPLinear(noise_width, width)
        # The factor sqrt(classes) gives the elements of a one-hot vector unit mean square.
        self.label = (
            ClassEmbedding(MPLinear(classes, width), math.sqrt(classes), label_dropout)
            if classes
            else None
        )

    def forward(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Return the embedding, ``[B, width]`` float32.

        Args:
            c_noise: ``[B]`` noise levels as encoded by the preconditioner.
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
    """A residual block with channels scaled by the embedding, then self-attention.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        side: an ``encoder`` block normalizes the main path at each pixel, before the residual
            branch starts; in a ``decoder`` block the branch starts from the block's input, which
            includes the skip connection.
        embedding: width of the embedding.
        dropout: probability that an element is dropped before the second convolution.
        resample: whether the block first doubles or halves height and width.
        heads: number of heads of the self-attention at the end; 0 for no self-attention.
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
        """Return the features ``[B, channels_out, H', W']``.

        Args:
            x: ``[B, channels_in, H, W]`` features.
            embedded: ``[B, embedding]`` embeddings of noise level and class.
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
        return x.clamp(-MAX_ACTIVATION, MAX_ACTIVATION)

    def _main(self, x: Tensor) -> Tensor:
        return x if self.skip is None else self.skip(x)

    def _residual(self, x: Tensor, embedded: Tensor) -> Tensor:
        y = self.conv0(mp_silu(x))
        scale = 1 + self.scale(embedded, self.scale_gain)
        y = mp_silu(y * scale[:, :, None, None].to(y.dtype))
        result: Tensor = self.conv1(self.dropout(y))
        return result


class Edm2UNet(nn.Module):
    """The magnitude-preserving U-Net.

    Args:
        shape: ``(channels, height, width)`` of an image; height and width divisible by
            ``2 ** (len(channel_mult) - 1)``.
        channels: base width.
        channel_mult: width of each level in units of ``channels``, full resolution first.
        blocks: number of blocks per level of the encoder; a level of the decoder has one more.
        attention: heights of the feature maps that have self-attention.
        channels_per_head: channels of an attention head; divides the width of these levels.
        dropout: probability that an element is dropped in a block.
        classes: number of classes; if it is 0, labels are ignored.
        label_dropout: probability that an item's label is dropped in training.
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
        """Return ``F(x; c_noise)``, with the shape of ``x``.

        Args:
            x: ``[B, channels, height, width]`` scaled noisy images.
            c_noise: ``[B]`` noise levels as encoded by the preconditioner.
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
        """Return the features at the lowest resolution, and the features for skip connections."""
        # A channel of ones replaces biases, because the layers have none.
        x = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        skips = [x]
        for block in self.encoder:
            x = block(x, embedded)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedded)
        return x, skips
