"""The encoder of the ADM U-Net with attention pooling, a classifier of noisy images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genkit.errors import Code, DataError
from genkit.tensors import constant
from genkit_dg.adm_layers import (
    CHANNELS_PER_HEAD,
    AttentionPool,
    Residual,
    SelfAttention,
    group_norm,
)

STEPS = 999
"""Factor by which times of the VP SDE, 0 to 1, are multiplied before they are embedded."""


class Unit(nn.Module):
    """A residual block, optionally followed by self-attention.

    Args:
        block: residual block.
        attention: self-attention, or None.
    """

    def __init__(self, block: Residual, attention: SelfAttention | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return the features ``[B, C, H', W']`` for features ``[B, C, H, W]``."""
        hidden: Tensor = self.block(x, condition)
        return hidden if self.attention is None else self.attention(hidden)


class AdmEncoder(nn.Module):
    """Residual blocks at decreasing resolution, then attention pooling.

    Call it as ``encoder(x [B, C, H, W], time [B], labels [B] or None) -> [B, outputs]``. The
    architecture is that of guided-diffusion's classifiers; the layers have different names.

    Source: Dhariwal and Nichol, arXiv 2105.05233, appendix H.

    Args:
        shape: ``(channels, height, width)`` of the input.
        channels: number of channels of the first level, a multiple of 64.
        multipliers: channels of each level in units of ``channels``; resolution is halved between
            levels.
        blocks: number of residual blocks per level.
        attention: heights of the feature maps with self-attention.
        outputs: number of outputs.
        classes: number of classes that condition the encoder; 0 for an unconditional one.
        dropout: probability that an element is dropped in a block.

    Raises:
        DataError: ``channels`` is not a multiple of 64, or the size cannot be halved.
    """

    frequencies: Tensor

    def __init__(
        self,
        shape: tuple[int, int, int],
        *,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        attention: Sequence[int],
        outputs: int,
        classes: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        image_channels, *size = shape
        self._require(size, channels, len(multipliers))
        condition = 4 * channels
        places = torch.arange(channels // 2, dtype=torch.float32, device="cpu")
        exponents = places / (channels // 2)
        frequencies = constant(torch.exp(-math.log(10_000) * exponents))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed_time = nn.Sequential(
            nn.Linear(channels, condition), nn.SiLU(), nn.Linear(condition, condition)
        )
        self.embed_label = nn.Embedding(classes, condition) if classes else None

        def unit(
            width_in: int, width_out: int, *, attends: bool = False, halves: bool = False
        ) -> Unit:
            block = Residual(width_in, width_out, condition, dropout, halves=halves)
            return Unit(block, SelfAttention(width_out) if attends else None)

        width = channels * multipliers[0]
        self.stem = nn.Conv2d(image_channels, width, 3, padding=1)
        self.units = nn.ModuleList()
        for level, multiplier in enumerate(multipliers):
            if level > 0:
                self.units.append(unit(width, width, halves=True))
                size = [side // 2 for side in size]
            for _ in range(blocks):
                self.units.append(unit(width, channels * multiplier, attends=size[0] in attention))
                width = channels * multiplier
        self.middle = nn.ModuleList([unit(width, width, attends=True), unit(width, width)])
        self.norm = group_norm(width)
        self.pool = AttentionPool((size[0], size[1]), width, outputs)

    @staticmethod
    def _require(size: Sequence[int], channels: int, levels: int) -> None:
        if channels % CHANNELS_PER_HEAD:
            raise DataError(
                f"channels must be a multiple of {CHANNELS_PER_HEAD}, got {channels}; write "
                f"{CHANNELS_PER_HEAD * max(1, round(channels / CHANNELS_PER_HEAD))}",
                Code.OUT_OF_RANGE,
            )
        times = 2 ** (levels - 1)
        if any(side % times for side in size):
            raise DataError(
                f"images for {levels} levels must have sides that are multiples of {times}, got "
                f"{'x'.join(map(str, size))}; write fewer multipliers",
                Code.WRONG_SHAPE,
            )

    def features(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the feature maps before attention pooling, ``[B, C, h, w]``.

        Args:
            x: ``[B, *shape]`` noisy images of the VP SDE; for the head of a discriminator, feature
                maps of another network.
            time: ``[B]`` times of the VP SDE, 0 to 1.
            labels: ``[B]`` int64 classes, or None.

        Raises:
            DataError: labels are None, but the encoder is class-conditional.
        """
        condition = self._condition(time, labels)
        hidden: Tensor = self.stem(x)
        for unit in [*self.units, *self.middle]:
            hidden = unit(hidden, condition)
        return hidden

    def head(self, features: Tensor) -> Tensor:
        """Return the outputs ``[B, outputs]`` for features ``[B, C, h, w]``."""
        pooled: Tensor = self.pool(F.silu(self.norm(features)))
        return pooled

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the outputs ``[B, outputs]``; the arguments are those of :meth:`features`."""
        return self.head(self.features(x, time, labels))

    def _condition(self, time: Tensor, labels: Tensor | None) -> Tensor:
        phase = (STEPS * time)[:, None] * self.frequencies
        embedded: Tensor = self.embed_time(torch.cat([phase.cos(), phase.sin()], dim=1))
        if self.embed_label is None:
            return embedded
        if labels is None:
            raise DataError(
                "labels are required by a class-conditional discriminator, got None; sample a "
                "class-conditional denoiser",
                Code.MISSING_ATTRIBUTE,
            )
        conditioned: Tensor = embedded + self.embed_label(labels)
        return conditioned
