"""A data set joined with the mirror images of its images."""

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
    """Add the left-right mirror image of each image to a data set, which doubles its size.

    The mirror images come after all images, in the same order. The augmentation ``flip`` mirrors at
    random; here each epoch contains every image and its mirror image.
    """

    source = "EDM, arXiv 2206.00364, appendix F.2"

    inner: Dataset = setting(doc="data set of images")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        try:
            spec = self.inner.spec()
        except DataError:
            return  # reported by the inner data set
        if not spec.is_image:
            yield Problem(("inner",), f"must be images, got items of shape {spec.shape}")

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
                f'data set "mirrored" requires images, got items of shape {shape}', Code.WRONG_SHAPE
            )
        twice = batch[torch.arange(len(batch)).repeat(2)]
        return twice.with_data(torch.cat([batch.data, batch.data.flip(-1)]))
