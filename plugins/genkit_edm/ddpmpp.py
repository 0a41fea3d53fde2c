"""Settings of the DDPM++ denoiser, and of its kin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from genkit.errors import Problem
from genkit.interfaces import Stages
from genkit.settings import setting
from genkit_edm.conditioning import Conditioning, scaled_class_embedding
from genkit_edm.embedding import FourierEmbedding, PositionalEmbedding
from genkit_edm.family import SONG
from genkit_edm.initialization import xavier
from genkit_edm.progressive import Decoder, Encoder
from genkit_edm.unet import UNet
from genkit_edm.unet_settings import UNetDenoiser

Embedding = Literal["positional", "fourier"]


@dataclass(frozen=True, kw_only=True)
class Ddpmpp(UNetDenoiser):
    """The DDPM++ U-Net with positional embedding, for images."""

    source = "EDM, arXiv 2206.00364, table 7; Song et al., arXiv 2011.13456"

    embedding: Embedding = setting("positional", doc="of the noise level")
    channel_mult_noise: int = setting(
        1, doc="width of the embedded noise level, in units of width", at_least=1
    )
    resample_filter: tuple[float, ...] = setting(
        (1, 1), doc="taps of the filter that halves and doubles sizes, an even number of them"
    )
    encoder: Encoder = setting("standard", doc="how the image itself reaches the smaller levels")
    decoder: Decoder = setting("standard", doc="standard, or skip: the smaller levels make images")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        taps = self.resample_filter
        if not taps or len(taps) % 2 or sum(taps) == 0:
            yield Problem(
                ("resample_filter",),
                f"{list(taps)} is not an even number of taps with a sum",
                "write [1, 1] or [1, 3, 3, 1]",
            )

    def unet(self, shape: tuple[int, int, int], classes: int, augment_labels: int) -> nn.Module:
        width = self.channels * self.channel_mult_noise
        noise = (
            PositionalEmbedding(width, endpoint=True)
            if self.embedding == "positional"
            else FourierEmbedding(width)
        )
        return UNet(
            shape,
            Conditioning(
                noise,
                self.channels * self.channel_mult_emb,
                scaled_class_embedding(classes, noise.width, self.label_dropout),
                augment=xavier(nn.Linear(augment_labels, noise.width, bias=False))
                if augment_labels
                else None,
            ),
            SONG,
            channels=self.channels,
            channel_mult=self.channel_mult,
            blocks=self.blocks,
            attention=self.attention,
            dropout=self.dropout,
            taps=self.resample_filter,
            encoder=self.encoder,
            decoder=self.decoder,
        )
