"""Settings of the U-Nets of EDM: DDPM++, NCSN++ and ADM."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Stages
from genkit.settings import quote, setting
from genkit.types import DataSpec
from genkit_edm.label_dropout import LabelDropout
from genkit_edm.unet.conditioning import (
    ClassEmbedding,
    Conditioning,
    FourierEmbedding,
    PositionalEmbedding,
    build_class_embedding,
)
from genkit_edm.unet.family import ADM, SONG, init_xavier
from genkit_edm.unet.network import Decoder, Encoder, UNet

_MOST_TAPS = 64
"""Maximum length of a resampling filter, which is built for every level; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class HalvingDenoiser(LabelDropout):
    """A U-Net that denoises images."""

    channels: int = setting(128, doc="base width", at_least=4)
    channel_mult: tuple[int, ...] = setting(
        (2, 2, 2),
        doc="width of each level in units of channels; each level halves the resolution",
        at_least=1,
    )
    blocks: int = setting(4, doc="number of residual blocks per level", at_least=1, at_most=256)
    attention: tuple[int, ...] = setting(
        (16,), doc="heights of the feature maps that have self-attention", at_least=1
    )
    dropout: float = setting(
        0.0, doc="probability that an element is dropped in a block", at_least=0, below=1
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.channel_mult:
            yield Problem(
                ("channel_mult",),
                "must have at least one level, got none",
                "write [2, 2, 2]",
                Code.WRONG_LENGTH,
            )
        yield from super().check(earlier)

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the U-Net.

        Raises:
            DataError: the data does not consist of images, their size cannot be halved often enough
                for the number of levels, or the network requires labels that the data lacks.
        """
        name = type(self).__name__.lower()
        if not spec.is_image:
            raise DataError(
                f"{name} must be used with images, got vectors of "
                f'{math.prod(spec.shape)} values; write network = {{ use = "mlp" }}',
                Code.WRONG_SHAPE,
            )
        channels, height, width = spec.shape
        halvings = len(self.channel_mult) - 1
        if height % 2**halvings or width % 2**halvings:
            size = math.gcd(height, width)
            possible = (size & -size).bit_length()  # levels: 1 + the exponent of 2 in both sizes
            raise DataError(
                f"{name} with channel_mult = {list(self.channel_mult)} must have images that can "
                f"be halved {halvings} times, got {height}x{width}; write channel_mult with "
                f"at most {possible} value{'s' if possible > 1 else ''}",
                Code.WRONG_SHAPE,
            )
        classes = self.classes_of(spec)
        return self.unet((channels, height, width), classes, spec.augment_labels)

    @abstractmethod
    def unet(self, shape: tuple[int, int, int], classes: int, augment_labels: int) -> nn.Module:
        """Return the U-Net for images whose size is compatible with the settings.

        Args:
            shape: ``(channels, height, width)`` of an image.
            classes: number of classes that condition the network; 0 if it is unconditional.
            augment_labels: length of the vector of augmentation labels; 0 without augmentation.
        """


@dataclass(frozen=True, kw_only=True)
class UNetDenoiser(HalvingDenoiser):
    """A U-Net of EDM, which can be conditioned on augmentation."""

    takes_augment_labels = True

    channel_mult_emb: int = setting(
        4, doc="width of the conditioning vector, in units of channels", at_least=1
    )


Embedding = Literal["positional", "fourier"]


@dataclass(frozen=True, kw_only=True)
class Ddpmpp(UNetDenoiser):
    """Builds the DDPM++ U-Net, with positional embedding, for images."""

    source = "EDM, arXiv 2206.00364, table 7; Song et al., arXiv 2011.13456"

    embedding: Embedding = setting("positional", doc="embedding of the noise level")
    channel_mult_noise: int = setting(
        1, doc="width of the embedded noise level, in units of channels", at_least=1
    )
    resample_filter: tuple[float, ...] = setting(
        (1, 1), doc="taps of the resampling filter; their number must be even"
    )
    encoder: Encoder = setting(
        "standard",
        doc="how the downsampled image is added at lower resolutions; standard: not added",
    )
    decoder: Decoder = setting(
        "standard",
        doc="standard: only the last level outputs an image; skip: the images of all levels are "
        "summed",
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        taps = self.resample_filter
        if not taps or len(taps) % 2 or len(taps) > _MOST_TAPS or sum(taps) == 0:
            yield Problem(
                ("resample_filter",),
                f"must be an even number of at most {_MOST_TAPS} taps with a nonzero sum, got "
                f"{quote(taps)}",
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
                build_class_embedding(classes, noise.width, self.label_dropout),
                augment=init_xavier(nn.Linear(augment_labels, noise.width, bias=False))
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


@dataclass(frozen=True, kw_only=True)
class Ncsnpp(Ddpmpp):
    """Builds the NCSN++ U-Net: DDPM++ with Fourier features, smoother filter, residual input."""

    embedding: Embedding = setting("fourier", doc="embedding of the noise level")
    channel_mult_noise: int = setting(
        2, doc="width of the embedded noise level, in units of channels", at_least=1
    )
    resample_filter: tuple[float, ...] = setting(
        (1, 3, 3, 1), doc="taps of the resampling filter; their number must be even"
    )
    encoder: Encoder = setting(
        "residual", doc="how the downsampled image is added at lower resolutions"
    )


@dataclass(frozen=True, kw_only=True)
class Adm(UNetDenoiser):
    """Builds the ADM U-Net, for larger images, with adaptive normalization and several heads."""

    source = "EDM, arXiv 2206.00364, table 7; Dhariwal and Nichol, arXiv 2105.05233"

    channels: int = setting(192, doc="base width", at_least=4)
    channel_mult: tuple[int, ...] = setting(
        (1, 2, 3, 4),
        doc="width of each level in units of channels; each level halves the resolution",
        at_least=1,
    )
    blocks: int = setting(3, doc="number of residual blocks per level", at_least=1, at_most=256)
    attention: tuple[int, ...] = setting(
        (32, 16, 8),
        doc="heights of the feature maps that have self-attention, with a head per 64 channels; "
        "levels with fewer channels have none",
        at_least=1,
    )

    def unet(self, shape: tuple[int, int, int], classes: int, augment_labels: int) -> nn.Module:
        for level, mult in enumerate(self.channel_mult):
            width, heads = self.channels * mult, ADM.heads(self.channels * mult)
            attends = shape[1] >> level in self.attention or level == len(self.channel_mult) - 1
            if attends and heads and width % heads:
                raise DataError(
                    f"the width of level {level} of adm must be a multiple of its {heads} "
                    f"attention heads, got {width}; write channels and channel_mult whose product "
                    "is a multiple of 64",
                    Code.CONFLICT,
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
