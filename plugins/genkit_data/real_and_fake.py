"""Real images beside generated ones, for training a discriminator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from genkit.artifacts import Samples, SamplesRef
from genkit.designs import design_behind
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Dataset, Inputs, Stages
from genkit.settings import setting
from genkit.tensors import as_stored
from genkit.types import Batch, DataSpec


@dataclass(frozen=True, kw_only=True)
class RealAndFake(Dataset):
    """A data set (source 1) joined with the samples of an earlier stage (source 0).

    Discriminator guidance reads d / (1 - d) as p_real / p_fake, which holds if both sources are
    equally likely. So each comes to as many items as the larger one has: items of the smaller are
    repeated, all equally often or once more, the extra ones spread evenly over its order. Images
    of both have 8 bits, so that their precision does not tell them apart.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3"

    real: Dataset = setting(doc="the real items", inherit="data")
    fakes: SamplesRef = setting(doc="id of the stage that generated the others")
    labels: bool = setting(False, doc="keep the class labels, which both sources must then have")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        denoiser = design_behind(self.fakes, earlier)
        if self.labels and self.real.spec().classes == 0:
            yield Problem(
                ("labels",), "the real data has no labels", "write false", Code.MISSING_ATTRIBUTE
            )
        if self.labels and denoiser and not denoiser.settings.class_conditional:
            yield Problem(
                ("labels",),
                f'the samples of "{self.fakes}" have no labels: their denoiser is not conditional',
                "write false, or give its network class_conditional = true",
                Code.MISSING_ATTRIBUTE,
            )
        if denoiser and denoiser.spec.shape != self.real.spec().shape:
            yield Problem(
                ("fakes",),
                f'the samples of "{self.fakes}" have shape {denoiser.spec.shape}, '
                f"but the real items {self.real.spec().shape}",
                "name a stage whose denoiser was trained on data of this shape",
            )

    def spec(self) -> DataSpec:
        real = self.real.spec()
        return DataSpec(real.shape, real.classes if self.labels else 0, sources=True)

    def load(self, inputs: Inputs) -> Batch:
        real, fake = self.real.load(inputs), inputs.read(self.fakes, Samples).batch
        real = real.with_data(as_stored(real.data, "image"))
        self._require_items(real, "image")
        self._require_items(fake, f'sample of "{self.fakes}"')
        if real.data.shape[1:] != fake.data.shape[1:]:
            raise DataError(
                f'the samples of "{self.fakes}" have shape {tuple(fake.data.shape[1:])}, '
                f"but the real items {tuple(real.data.shape[1:])}",
                Code.WRONG_SHAPE,
            )
        count = max(len(real), len(fake))
        chosen = [torch.arange(count) * len(batch) // count for batch in (real, fake)]
        labels = None
        if real.labels is not None and fake.labels is not None and self.labels:
            labels = torch.cat([real.labels[chosen[0]], fake.labels[chosen[1]]])
        # Joined in place, and the samples dropped in between: three copies would fill a gigabyte.
        joined = real.data.new_empty(2 * count, *real.data.shape[1:])
        torch.index_select(fake.data, 0, chosen[1], out=joined[count:])
        del fake
        torch.index_select(real.data, 0, chosen[0], out=joined[:count])
        return Batch(joined, labels, torch.cat([torch.ones(count), torch.zeros(count)]).long())

    def _require_items(self, batch: Batch, what: str) -> None:
        if len(batch) == 0:
            raise DataError(f"there is no {what}", Code.WRONG_LENGTH)
        if self.labels and batch.labels is None:
            raise DataError(
                f"labels = true, but no {what} has a label; write labels = false",
                Code.MISSING_ATTRIBUTE,
            )
