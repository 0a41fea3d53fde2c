"""Settings of the EDM2 denoiser."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import nn

from genkit.errors import Code, DataError
from genkit.settings import setting
from genkit_edm.edm2.network import Edm2UNet
from genkit_edm.edm2.uncertainty import UncertainDenoiser
from genkit_edm.unet.denoisers import HalvingDenoiser


@dataclass(frozen=True, kw_only=True)
class Edm2(HalvingDenoiser, UncertainDenoiser):
    """Builds EDM2's U-Net, in which activations and weights do not grow during training."""

    source = "EDM2, arXiv 2312.02696, appendix B, config G"

    channels: int = setting(
        128,
        doc="base width; the paper's size S has 192, with channel_mult = [1, 2, 3, 4]",
        at_least=1,
    )
    channel_mult: tuple[int, ...] = setting(
        (1, 2, 2),
        doc="width of each level in units of channels; each level halves the resolution",
        at_least=1,
    )
    blocks: int = setting(3, doc="number of residual blocks per level", at_least=1, at_most=256)
    attention: tuple[int, ...] = setting(
        (16, 8), doc="heights of the feature maps that have self-attention", at_least=1
    )
    channels_per_head: int = setting(64, doc="width of an attention head", at_least=1)

    def unet(self, shape: tuple[int, int, int], classes: int, augment_labels: int) -> nn.Module:
        self._require_heads(shape[1])
        return Edm2UNet(
            shape,
            channels=self.channels,
            channel_mult=self.channel_mult,
            blocks=self.blocks,
            attention=self.attention,
            channels_per_head=self.channels_per_head,
            dropout=self.dropout,
            classes=classes,
            label_dropout=self.label_dropout,
        )

    def _require_heads(self, height: int) -> None:
        """Check that heads divide the width of every level with attention, else raise DataError."""
        widths = [self.channels * mult for mult in self.channel_mult]
        attending = [w for i, w in enumerate(widths) if height >> i in self.attention]
        for width in (*attending, widths[-1]):  # the bottleneck always has attention
            if width % self.channels_per_head:
                raise DataError(
                    f"channels_per_head must divide the {width} channels that have attention, got "
                    f"{self.channels_per_head}; write channels_per_head = "
                    f"{math.gcd(*attending, widths[-1])}",
                    Code.CONFLICT,
                )
