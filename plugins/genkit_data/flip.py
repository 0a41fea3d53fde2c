"""Random horizontal mirroring, an augmentation for most photographs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from genkit.errors import Code, DataError
from genkit.interfaces import Augmentation
from genkit.settings import setting
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class Flip(Augmentation):
    """Mirror images left to right at random."""

    source = "EDM, arXiv 2206.00364, appendix F.2"

    probability: float = setting(
        0.5, doc="probability that an image is mirrored", at_least=0, at_most=1
    )

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        images = batch.data
        if images.ndim != 4:
            shape = tuple(images.shape[1:])
            raise DataError(
                f'augmentation "flip" requires images, got items of shape {shape}; remove it',
                Code.WRONG_SHAPE,
            )
        mirrored = torch.rand(len(batch), generator=generator) < self.probability
        mask = mirrored.to(images.device)[:, None, None, None]
        return batch.with_data(torch.where(mask, images.flip(-1), images))
