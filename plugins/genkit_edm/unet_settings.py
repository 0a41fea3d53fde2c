"""The settings that all U-Nets have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from genkit.errors import DataError, Problem
from genkit.interfaces import Denoiser, Stages
from genkit.settings import setting
from genkit.types import DataSpec
from genkit_edm.conditioning import classes_of


@dataclass(frozen=True, kw_only=True)
class HalvingDenoiser(Denoiser):
    """A U-Net that denoises images."""

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
    label_dropout: float = setting(
        0.0,
        doc="probability that an item's class is hidden in training; above 0, the network can "
        "also be asked without a class",
        at_least=0,
        below=1,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.channel_mult:
            yield Problem(("channel_mult",), "there is no level", "write [2, 2, 2]")
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
                are levels; or labels are asked of data that has none.
        """
        name = type(self).__name__.lower()
        if not spec.is_image:
            raise DataError(
                f"{name} denoises images, and each item of this data is a vector of "
                f'{math.prod(spec.shape)} values; write network = {{ use = "mlp" }}'
            )
        channels, height, width = spec.shape
        halvings = len(self.channel_mult) - 1
        if height % 2**halvings or width % 2**halvings:
            size = math.gcd(height, width)
            possible = (size & -size).bit_length()  # 1 + how often 2 divides both
            raise DataError(
                f"{name} with channel_mult = {list(self.channel_mult)} halves images {halvings} "
                f"times, and {height}x{width} cannot be halved so often; write channel_mult with "
                f"at most {possible} value{'s' if possible > 1 else ''}"
            )
        classes = classes_of(spec, self.class_conditional)
        return self.unet((channels, height, width), classes, spec.augment_labels)

    @abstractmethod
    def unet(self, shape: tuple[int, int, int], classes: int, augment_labels: int) -> nn.Module:
        """Return the U-Net for images that the settings fit.

        Args:
            shape: ``(channels, height, width)`` of an image.
            classes: number of classes it is told; 0 for none.
            augment_labels: length of the vector that tells of augmentation; 0 for none.
        """


@dataclass(frozen=True, kw_only=True)
class UNetDenoiser(HalvingDenoiser):
    """A U-Net of EDM's, which can be told how its images were augmented."""

    takes_augment_labels = True

    channel_mult_emb: int = setting(
        4, doc="width of the conditioning vector, in units of width", at_least=1
    )
