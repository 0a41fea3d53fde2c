"""What extractors with a published network for photographs share: how it is given the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Design, Extractor
from genkit.parts.precision import Precision, network_precision
from genkit.settings import setting
from genkit.types import DataSpec

Grey = Literal["repeat"]

BATCH = 64
"""Images that a network is given at a time: 64 take 0.9 GB in Inception, measured on a CPU."""

_OTHER_ITEMS = 'choose another extractor, such as { use = "pixels" }'
_REPEAT = 'write grey = "repeat", which gives all three channels the grey values'


@dataclass(frozen=True, kw_only=True)
class ImageNetwork(Extractor):
    """Features of a network that was trained on images of three channels."""

    grey: Grey | None = setting(
        None, doc="what the three channels of a grey image are; required for grey data"
    )
    precision: Precision = setting(
        "float32",
        doc="arithmetic of the network; tf32 is float32, with products and convolutions in TF32 on "
        "NVIDIA GPUs",
    )

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if not spec.is_image or spec.shape[0] not in (1, 3):
            reason = f"must be given images of 1 or 3 channels, got items of shape {spec.shape}"
            yield Problem((), reason, _OTHER_ITEMS, Code.WRONG_SHAPE)
        elif spec.shape[0] == 1 and self.grey is None:
            reason = "must be set for images of one channel, got none"
            yield Problem(("grey",), reason, _REPEAT, Code.MISSING_KEY)


class ImageFeatures(nn.Module):
    """Called as ``module(images [B, C, H, W]) -> features [B, F]``, float32 in all precisions.

    Images are in [-1, 1] and are rounded to 8 bits, as saved images are. A network sees the same
    numbers, whether they were saved or not.

    Args:
        network: called with pixels ``[B, 3, H, W]`` from 0 to 255; returns features ``[B, F]``.
        settings: what to do with grey images, and the precision of the arithmetic.
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
            DataError: the items are no images of 3 channels, or of 1 without the setting ``grey``.
        """
        if problem := next(self.settings.check_items(DataSpec(tuple(images.shape[1:])), {}), None):
            raise DataError(f"extractor: {problem.reason}; {problem.hint}", problem.code)
        pixels = (images * 127.5 + 128).floor().clamp(0, 255).float().expand(-1, 3, -1, -1)
        with network_precision(images.device, self.settings.precision, products=True):
            return torch.cat([self.network(part).float() for part in torch.split(pixels, BATCH)])
