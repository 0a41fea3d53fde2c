"""A data set that is doubled by mirroring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Dataset, Inputs, Stages
from genkit.settings import setting
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class Mirrored(Dataset):
    """Adds to each image of a data set its mirror image, left to right: twice as many items.

    All images come first, then all mirror images in the same order. The augmentation ``flip``
    instead mirrors at random; here an epoch has each image both ways.
    """

    source = "EDM, arXiv 2206.00364, appendix F.2"

    inner: Dataset = setting(doc="the images")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            spec = self.inner.spec()
        except DataError:
            return  # reported where the inner data set is asked
        if not spec.is_image:
            yield Problem(("inner",), f"its items have shape {spec.shape}, and are no images")

    def spec(self) -> DataSpec:
        return self.inner.spec()

    def item_count(self) -> int | None:
        count = self.inner.item_count()
        return None if count is None else 2 * count

    def version(self) -> str:
        return self.inner.version()

    def load(self, inputs: Inputs) -> Batch:
        batch = self.inner.load(inputs)
        if batch.data.ndim != 4:
            shape = tuple(batch.data.shape[1:])
            raise DataError(
                f'"mirrored" mirrors images, but items have shape {shape}', Code.WRONG_SHAPE
            )
        twice = batch[torch.arange(len(batch)).repeat(2)]
        return twice.with_data(torch.cat([batch.data, batch.data.flip(-1)]))
