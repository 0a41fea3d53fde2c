"""Ways of the image into the U-Net, and out of it, beside those at full size.

Source: Karras et al., arXiv 1912.04958, section 4.1, as Song et al., arXiv 2011.13456, use them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from genkit_edm.family import Family
from genkit_edm.layers import group_norm
from genkit_edm.resampling import Downsampling, Upsampling

Encoder = Literal["standard", "skip", "residual"]
Decoder = Literal["standard", "skip"]


class InputSkip(nn.Module):
    """Adds the image at the size of a level, projected, to its features.

    Args:
        channels_in: of the image.
        channels_out: of the features.
        taps: of the filter that halves the image.
        family: how weights start.
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
    """Adds what the level above made of the image to the features of a level.

    Args:
        channels_in: of what the level above made; the image's for the first.
        channels_out: of the features.
        taps: of the filter that halves it.
        family: how weights start.
    """

    def __init__(
        self, channels_in: int, channels_out: int, taps: Sequence[float], family: Family
    ) -> None:
        super().__init__()
        # The convolution reaches far enough over the border for the filter after it.
        padding = 1 + Downsampling(taps).padding
        self.conv = family.initialization.usual(
            nn.Conv2d(channels_in, channels_out, 3, padding=padding)
        )
        self.down = Downsampling(taps, padded=False)

    def forward(self, x: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, as such and as what the next level starts from.

        Args:
            x: ``[B, channels_out, H, W]`` features.
            image: ``[B, channels_in, 2 H, 2 W]``.
        """
        x = (x + self.down(self.conv(image))) * math.sqrt(0.5)
        return x, x


class ImageHead(nn.Module):
    """Makes an image of the features of a level, added to the image of the smaller one.

    Args:
        channels_in: of the features.
        channels_out: of the image.
        up: doubles the smaller image; None for the first image.
        family: how to normalise, and how weights start.
    """

    def __init__(
        self, channels_in: int, channels_out: int, up: Upsampling | None, family: Family
    ) -> None:
        super().__init__()
        self.up = up
        self.norm = group_norm(channels_in, family.eps)
        self.conv = family.initialization.last(nn.Conv2d(channels_in, channels_out, 3, padding=1))

    def forward(self, x: Tensor, image: Tensor | None) -> Tensor:
        """Return ``[B, channels_out, H, W]``.

        Args:
            x: ``[B, channels_in, H, W]`` features.
            image: ``[B, channels_out, H / 2, W / 2]``, or None for the first image.
        """
        made: Tensor = self.conv(F.silu(self.norm(x)))
        return made if self.up is None else made + self.up(image)
