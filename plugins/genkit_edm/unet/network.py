"""The U-Net: an encoder and a decoder of residual blocks with skip connections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.unet.conditioning import Conditioning
from genkit_edm.unet.family import Family
from genkit_edm.unet.layers import Block, Downsampling, Upsampling, group_norm

Encoder = Literal["standard", "skip", "residual"]
Decoder = Literal["standard", "skip"]


class InputSkip(nn.Module):
    """Adds the downsampled and projected image to the features of a level.

    Args:
        channels_in: channels of the image.
        channels_out: channels of the features.
        taps: taps of the filter that downsamples the image.
        family: family of the U-Net.
    """

    def __init__(
        self, channels_in: int, channels_out: int, taps: Sequence[float], family: Family
    ) -> None:
        super().__init__()
        self.down = Downsampling(taps)
        self.conv = family.initialization.usual(nn.Conv2d(channels_in, channels_out, 1))

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features and the image for the next level.

        Args:
            x: ``[B, channels_out, H, W]`` features.
            image: ``[B, channels_in, 2 H, 2 W]``.
        """
        image = self.down(image)
        return x + self.conv(image), image


class InputResidual(nn.Module):
    """Adds the projected and downsampled residual of the previous level to the features.

    Args:
        channels_in: channels of that residual; channels of the image for the first level.
        channels_out: channels of the features.
        taps: taps of the filter that downsamples the residual.
        family: family of the U-Net.
    """

    def __init__(
        self, channels_in: int, channels_out: int, taps: Sequence[float], family: Family
    ) -> None:
        super().__init__()
        # Includes the padding for the filter, which is applied without padding of its own.
        padding = 1 + Downsampling(taps).padding
        self.conv = family.initialization.usual(
            nn.Conv2d(channels_in, channels_out, 3, padding=padding)
        )
        self.down = Downsampling(taps, padded=False)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new features twice: as features, and as the residual for the next level.

        Args:
            x: ``[B, channels_out, H, W]`` features.
            image: ``[B, channels_in, 2 H, 2 W]``.
        """
        x = (x + self.down(self.conv(image))) * math.sqrt(0.5)
        return x, x


class ImageHead(nn.Module):
    """Projects the features of a level to an image, and adds the upsampled previous image.

    Args:
        channels_in: channels of the features.
        channels_out: channels of the image.
        up: module that upsamples the previous image; None for the first image.
        family: family of the U-Net.
    """

    def __init__(
        self, channels_in: int, channels_out: int, up: Upsampling | None, family: Family
    ) -> None:
        super().__init__()
        self.up = up
        self.norm = group_norm(channels_in, family.eps)
        self.conv = family.initialization.last(nn.Conv2d(channels_in, channels_out, 3, padding=1))

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """Return the image ``[B, channels_out, H, W]``.

        Args:
            x: ``[B, channels_in, H, W]`` features.
            image: ``[B, channels_out, H / 2, W / 2]`` previous image; None for the first image.
        """
        output: Tensor = self.conv(F.silu(self.norm(x)))
        return output if self.up is None else output + self.up(image)


class EncoderLevel(nn.Module):
    """The encoder's blocks at one resolution.

    Args:
        down: first block, which halves the resolution; None at full resolution.
        image_in: module that adds the downsampled image, or None.
        blocks: residual blocks, applied in this order.
    """

    def __init__(
        self,
        down: Block | None,
        image_in: InputSkip | InputResidual | None,
        blocks: Sequence[Block],
    ) -> None:
        super().__init__()
        self.down = down
        self.image_in = image_in
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, image: Tensor, condition: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features after each block, and the image for the next level."""
        features = []
        if self.down is not None:
            x = self.down(x, condition)
            if self.image_in is not None:
                x, image = self.image_in(x, image)
            features.append(x)
        for block in self.blocks:
            x = block(x, condition)
            features.append(x)
        return features, image


class DecoderLevel(nn.Module):
    """The decoder's blocks at one resolution.

    Args:
        up: first block, which doubles the resolution; None at the lowest resolution.
        blocks: residual blocks, applied in this order, each with a skip connection.
        image_out: module that projects the features to an image; None if the level has no image.
    """

    def __init__(
        self, up: Block | None, blocks: Sequence[Block], image_out: ImageHead | None
    ) -> None:
        super().__init__()
        self.up = up
        self.blocks = nn.ModuleList(blocks)
        self.image_out = image_out

    def forward(
        self, x: Tensor, image: Tensor | None, skips: Sequence[Tensor], condition: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features, and the sum of the images so far.

        Args:
            x: ``[B, C, H, W]`` features of the level below.
            image: image of the level below; None if there is none yet.
            skips: features of the encoder for the skip connections, one per block, in the
                encoder's order.
            condition: ``[B, condition]`` conditioning vectors.
        """
        if self.up is not None:
            x = self.up(x, condition)
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = block(torch.cat([x, skip], dim=1), condition)
        return x, image if self.image_out is None else self.image_out(x, image)


class UNet(nn.Module):
    """The U-Net of EDM (arXiv 2206.00364, table 7).

    Args:
        shape: ``(channels, height, width)`` of an image; height and width divisible by
            ``2 ** (len(channel_mult) - 1)``.
        conditioning: embedding of noise level and other conditions.
        family: family of the U-Net.
        channels: base width.
        channel_mult: width of each level in units of ``channels``, full resolution first.
        blocks: number of residual blocks per level of the encoder; a level of the decoder has one
            more.
        attention: heights of the feature maps that have self-attention.
        dropout: probability that an element is dropped in a block.
        taps: taps of the resampling filter.
        encoder: how the downsampled image is added to lower resolutions.
        decoder: whether every level outputs an image (``skip``), or only the last one
            (``standard``).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        conditioning: Conditioning,
        family: Family,
        *,
        channels: int,
        channel_mult: tuple[int, ...],
        blocks: int,
        attention: tuple[int, ...],
        dropout: float,
        taps: tuple[float, ...] = (1, 1),
        encoder: Encoder = "standard",
        decoder: Decoder = "standard",
    ) -> None:
        super().__init__()
        block = partial(Block, family=family, condition=conditioning.width, dropout=dropout)
        levels = [(channels * mult, shape[1] >> i) for i, mult in enumerate(channel_mult)]
        image_in = {"standard": None, "skip": InputSkip, "residual": InputResidual}[encoder]
        self.conditioning = conditioning
        self.family = family

        width = levels[0][0] if family.wide_stem else channels
        image_width = shape[0]
        self.stem = family.initialization.usual(nn.Conv2d(shape[0], width, 3, padding=1))
        skips = [width]
        self.encoder = nn.ModuleList()
        for level, (level_width, height) in enumerate(levels):
            down = merge = None
            if level > 0:
                down = block(width, width, resampling=Downsampling(taps))
                skips.append(width)
                if image_in is not None:
                    merge = image_in(image_width, width, taps, family)
                    image_width = width if encoder == "residual" else image_width
            here = []
            for _ in range(blocks):
                here.append(block(width, level_width, attention=height in attention))
                width = level_width
                skips.append(width)
            self.encoder.append(EncoderLevel(down, merge, here))

        self.middle = nn.ModuleList([block(width, width, attention=True), block(width, width)])

        self.skips = blocks + 1  # per level of the decoder
        self.decoder = nn.ModuleList()
        for level, (level_width, height) in reversed(list(enumerate(levels))):
            smallest = level == len(levels) - 1
            up = None if smallest else block(width, width, resampling=Upsampling(taps))
            here = []
            for index in range(blocks + 1):
                attends = height in attention and (family.attends_throughout or index == blocks)
                here.append(block(width + skips.pop(), level_width, attention=attends))
                width = level_width
            head = None
            if level == 0 or decoder == "skip":
                first = smallest or decoder == "standard"
                enlarge = None if first else Upsampling(taps)
                head = ImageHead(width, shape[0], enlarge, family)
            self.decoder.append(DecoderLevel(up, here, head))

    def forward(
        self,
        x: Tensor,
        c_noise: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Return ``F(x; c_noise)``, with the shape of ``x``.

        Args:
            x: ``[B, channels, height, width]`` scaled noisy images.
            c_noise: ``[B]`` noise levels as encoded by the preconditioner.
            labels: ``[B]`` int64 classes, or ``[B, classes]`` float class weights; ignored by an
                unconditional network.
            augment_labels: ``[B, A]`` augmentation of the images; None if they are not augmented.
        """
        condition = self.conditioning(c_noise, labels, augment_labels)
        x, features = self._encoded(x, condition)
        result = None
        for level in self.decoder:
            skips, features = features[-self.skips :], features[: -self.skips]
            x, result = level(x, result, skips, condition)
        return cast(Tensor, result)

    def encode(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the features ``[B, C, h, w]`` at the lowest resolution; see :meth:`forward`."""
        return self._encoded(x, self.conditioning(c_noise, labels))[0]

    def _encoded(self, x: Tensor, condition: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the features at the lowest resolution, and the features for skip connections."""
        image, skips = x, [self.stem(x)]
        for level in self.encoder:
            features, image = level(skips[-1], image, condition)
            skips += features
        x = skips[-1]
        for block in self.middle:
            x = block(x, condition)
        return x, skips
