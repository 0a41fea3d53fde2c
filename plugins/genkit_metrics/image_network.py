"""Base class of extractors with a published network for photographs.

It has the settings and the conversion of images that these extractors share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Design, Extractor
from genkit.parts.precision import Precision, network_precision
from genkit.settings import setting
from genkit.types import DataSpec

Gray = Literal["repeat"]

BATCH = 64
"""Batch size of the network; 64 images take 0.9 GB of memory in Inception, measured on a CPU."""

_OTHER_ITEMS = 'choose another extractor, such as { use = "pixels" }'
_REPEAT = 'write gray = "repeat", which copies the gray values to all three channels'


@dataclass(frozen=True, kw_only=True)
class ImageNetwork(Extractor):
    """Features of a network that was trained on images with three channels."""

    renamed = MappingProxyType({"grey": "gray = ..."})

    gray: Gray | None = setting(
        None, doc="conversion of gray images to three channels; required for gray images"
    )
    precision: Precision = setting(
        "float32",
        doc="precision of the network's arithmetic; tf32 is float32 with matrix products and "
        "convolutions in TF32 on NVIDIA GPUs",
    )

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if not spec.is_image or spec.shape[0] not in (1, 3):
            reason = f"requires images of 1 or 3 channels, got items of shape {spec.shape}"
            yield Problem((), reason, _OTHER_ITEMS, Code.WRONG_SHAPE)
        elif spec.shape[0] == 1 and self.gray is None:
            reason = "is required for images of one channel"
            yield Problem(("gray",), reason, _REPEAT, Code.MISSING_KEY)


class ImageFeatures(nn.Module):
    """Module that returns features ``[B, F]`` float32 of images ``[B, C, H, W]`` in [-1, 1].

    Images are rounded to 8 bits like saved images, so that saving them does not change features.

    Args:
        network: network that returns features ``[B, F]`` of pixels ``[B, 3, H, W]`` from 0 to 255.
        settings: component with the settings ``gray`` and ``precision``.
    """

    def __init__(self, network: nn.Module, settings: ImageNetwork) -> None:
        super().__init__()
        self.network = network
        self.settings = settings
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return the features.

        Raises:
            DataError: the items are not images, or they have neither 3 channels nor 1 channel with
                ``gray`` set.
        """
        if problem := next(self.settings.check_items(DataSpec(tuple(images.shape[1:])), {}), None):
            key = ".".join(("extractor", *map(str, problem.key)))
            raise DataError(f"{key} {problem.reason}; {problem.hint}", problem.code)
        pixels = (images * 127.5 + 128).floor().clamp(0, 255).float().expand(-1, 3, -1, -1)
        with network_precision(images.device, self.settings.precision, products=True):
            return torch.cat([self.network(part).float() for part in torch.split(pixels, BATCH)])
