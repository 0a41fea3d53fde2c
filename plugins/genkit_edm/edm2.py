"""Settings of the EDM2 denoiser."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from genkit.errors import DataError, Problem
from genkit.interfaces import Stages
from genkit.settings import setting
from genkit.types import DataSpec
from genkit_edm.conditioning import classes_of
from genkit_edm.edm2_unet import Edm2UNet
from genkit_edm.uncertainty import UncertainDenoiser


@dataclass(frozen=True, kw_only=True)
class Edm2(UncertainDenoiser):
    """The magnitude-preserving U-Net: neither activations nor weights grow in training."""

    source = "EDM2, arXiv 2312.02696, appendix B, config G"

    channels: int = setting(
        128,
        doc="unit of width; 192 is the paper's size S, with channel_mult = [1, 2, 3, 4]",
        at_least=1,
    )
    channel_mult: tuple[int, ...] = setting(
        (1, 2, 2), doc="width of each level in that unit; each level halves the size", at_least=1
    )
    blocks: int = setting(3, doc="residual blocks of each level", at_least=1)
    attention: tuple[int, ...] = setting(
        (16, 8), doc="heights of the feature maps that have self-attention", at_least=1
    )
    channels_per_head: int = setting(64, doc="width of an attention head", at_least=1)
    dropout: float = setting(
        0.0, doc="probability that an element is dropped in a block", at_least=0, below=1
    )
    label_dropout: float = setting(
        0.0,
        doc="probability that an item's class is hidden in training; above 0, the network can "
        "also be asked without a class",
        at_least=0,
        below=1,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.channel_mult:
            yield Problem(("channel_mult",), "there is no level", "write [1, 2, 2]")
        if self.label_dropout and not self.class_conditional:
            yield Problem(
                ("label_dropout",),
                "an unconditional network is given no classes to hide",
                "write class_conditional = true, or label_dropout = 0.0",
            )

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the U-Net.

        Raises:
            DataError: the data is no images, or images that cannot be halved as often as there
                are levels; heads do not divide the channels; or labels are asked of data that has
                none.
        """
        if not spec.is_image:
            raise DataError(
                f"edm2 denoises images, and each item of this data is a vector of "
                f'{math.prod(spec.shape)} values; write network = {{ use = "mlp" }}'
            )
        channels, height, width = spec.shape
        halvings = len(self.channel_mult) - 1
        if height % 2**halvings or width % 2**halvings:
            size = math.gcd(height, width)
            possible = (size & -size).bit_length()  # 1 + how often 2 divides both
            raise DataError(
                f"edm2 with channel_mult = {list(self.channel_mult)} halves images {halvings} "
                f"times, and {height}x{width} cannot be halved so often; write channel_mult with "
                f"at most {possible} value{'s' if possible > 1 else ''}"
            )
        self._require_heads(height)
        return Edm2UNet(
            (channels, height, width),
            channels=self.channels,
            channel_mult=self.channel_mult,
            blocks=self.blocks,
            attention=self.attention,
            channels_per_head=self.channels_per_head,
            dropout=self.dropout,
            classes=classes_of(spec, self.class_conditional),
            label_dropout=self.label_dropout,
        )

    def _require_heads(self, height: int) -> None:
        """Raise DataError unless the levels with attention consist of whole heads."""
        widths = [self.channels * mult for mult in self.channel_mult]
        attending = [w for i, w in enumerate(widths) if height >> i in self.attention]
        for width in (*attending, widths[-1]):  # the middle always has attention
            if width % self.channels_per_head:
                raise DataError(
                    f"edm2 has attention over {width} channels, which are no whole number of heads "
                    f"of {self.channels_per_head}; write channels_per_head = "
                    f"{math.gcd(*attending, widths[-1])}"
                )
