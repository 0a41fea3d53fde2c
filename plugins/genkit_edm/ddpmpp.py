"""Settings of the DDPM++ denoiser."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from genkit.errors import DataError, Problem
from genkit.interfaces import Denoiser, Stages
from genkit.settings import setting
from genkit.types import DataSpec
from genkit_edm.conditioning import Conditioning, PositionalEmbedding, classes_of
from genkit_edm.unet import UNet


@dataclass(frozen=True, kw_only=True)
class Ddpmpp(Denoiser):
    """The DDPM++ U-Net with positional embedding, for images."""

    source = "EDM, arXiv 2206.00364, table 7; Song et al., arXiv 2011.13456"

    channels: int = setting(128, doc="unit of width", at_least=4)
    channel_mult: tuple[int, ...] = setting(
        (2, 2, 2), doc="width of each level in that unit; each level halves the size", at_least=1
    )
    blocks: int = setting(4, doc="residual blocks of each level", at_least=1)
    attention: tuple[int, ...] = setting(
        (16,), doc="heights of the feature maps that have self-attention", at_least=1
    )
    dropout: float = setting(
        0.0, doc="probability that an element is dropped in a block", at_least=0, below=1
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.channel_mult:
            yield Problem(("channel_mult",), "there is no level", "write [2, 2, 2]")

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the U-Net.

        Raises:
            DataError: the data is no images, or images that cannot be halved as often as there
                are levels; or labels are asked of data that has none.
        """
        if not spec.is_image:
            raise DataError(
                f"ddpmpp denoises images, and each item of this data is a vector of "
                f'{math.prod(spec.shape)} values; write network = {{ use = "mlp" }}'
            )
        channels, height, width = spec.shape
        halvings = len(self.channel_mult) - 1
        if height % 2**halvings or width % 2**halvings:
            size = math.gcd(height, width)
            possible = (size & -size).bit_length()  # 1 + how often 2 divides both
            raise DataError(
                f"ddpmpp with channel_mult = {list(self.channel_mult)} halves images {halvings} "
                f"times, and {height}x{width} cannot be halved so often; write channel_mult with "
                f"at most {possible} value{'s' if possible > 1 else ''}"
            )
        return UNet(
            (channels, height, width),
            Conditioning(
                PositionalEmbedding(self.channels),
                classes_of(spec, self.class_conditional),
                4 * self.channels,
            ),
            channels=self.channels,
            channel_mult=self.channel_mult,
            blocks=self.blocks,
            attention=self.attention,
            dropout=self.dropout,
        )
