"""Settings of the ADM denoiser."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from genkit.errors import DataError
from genkit.settings import setting
from genkit_edm.conditioning import ClassEmbedding, Conditioning
from genkit_edm.embedding import PositionalEmbedding
from genkit_edm.family import ADM
from genkit_edm.unet import UNet
from genkit_edm.unet_settings import UNetDenoiser


@dataclass(frozen=True, kw_only=True)
class Adm(UNetDenoiser):
    """The ADM U-Net, for larger images: the condition scales and shifts, attention has heads."""

    source = "EDM, arXiv 2206.00364, table 7; Dhariwal and Nichol, arXiv 2105.05233"

    channels: int = setting(192, doc="unit of width", at_least=4)
    channel_mult: tuple[int, ...] = setting(
        (1, 2, 3, 4), doc="width of each level in that unit; each level halves the size", at_least=1
    )
    blocks: int = setting(3, doc="residual blocks of each level", at_least=1)
    attention: tuple[int, ...] = setting(
        (32, 16, 8),
        doc="heights of the feature maps that have self-attention: a head for each 64 channels, "
        "so none where there are fewer",
        at_least=1,
    )

    def unet(self, shape: tuple[int, int, int], classes: int, augment_labels: int) -> nn.Module:
        for level, mult in enumerate(self.channel_mult):
            width, heads = self.channels * mult, ADM.heads(self.channels * mult)
            attends = shape[1] >> level in self.attention or level == len(self.channel_mult) - 1
            if attends and heads and width % heads:
                raise DataError(
                    f"the {width} channels of level {level} of adm cannot be shared equally by "
                    f"{heads} heads of attention; write channels and channel_mult whose product is "
                    f"a multiple of 64"
                )
        start, condition = ADM.initialization, self.channels * self.channel_mult_emb
        noise = PositionalEmbedding(self.channels, endpoint=False)
        label = augment = None
        if classes:
            linear = nn.Linear(classes, condition, bias=False)
            nn.init.normal_(linear.weight)
            label = ClassEmbedding(linear, dropout=self.label_dropout)
        if augment_labels:
            augment = start.last(nn.Linear(augment_labels, noise.width, bias=False))
        return UNet(
            shape,
            Conditioning(
                noise,
                condition,
                label,
                late_label=True,
                augment=augment,
                initialization=start,
            ),
            ADM,
            channels=self.channels,
            channel_mult=self.channel_mult,
            blocks=self.blocks,
            attention=self.attention,
            dropout=self.dropout,
        )
