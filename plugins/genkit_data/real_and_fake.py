"""Real images beside generated ones, for training a discriminator."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from genkit.artifacts import Samples, SamplesRef
from genkit.designs import design_behind
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Dataset, Inputs, Stages
from genkit.random import generator
from genkit.settings import setting
from genkit.tensors import as_stored
from genkit.types import Batch, DataSpec

Classes = Literal["as-drawn", "as-real", "balanced"]
Part = Literal["training", "held-out"]


@dataclass(frozen=True, kw_only=True)
class RealAndFake(Dataset):
    """A data set (source 1) joined with the samples of an earlier stage (source 0).

    Discriminator guidance reads d / (1 - d) as p_real / p_fake, which holds if both sources are
    equally likely. So each comes to as many items as the larger one has: items of the smaller are
    repeated, all equally often or once more, the extra ones spread evenly over its order. Images
    of both have 8 bits, so that their precision does not tell them apart.

    ``classes`` chooses among items by their class. Where the discriminator is not given the class,
    shares of classes that differ would be learned as well.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3"

    real: Dataset = setting(doc="the real items", inherit="data")
    fakes: SamplesRef = setting(doc="id of the stage that generated the others")
    labels: bool = setting(False, doc="keep the class labels, which both must then have")
    classes: Classes = setting(
        "as-drawn",
        doc="share of each class among the fakes: as they were drawn, as among the real items, or "
        "balanced, which balances the real items too",
    )
    held_out: float = setting(
        0.0,
        doc="share of the real and of the generated items kept out of training, to judge the "
        "discriminator on items that it has not seen",
        at_least=0,
        below=1,
    )
    part: Part = setting("training", doc="items of the training, or those that are held out")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        denoiser = design_behind(self.fakes, earlier)
        if self.part == "held-out" and not self.held_out:
            yield Problem(("held_out",), "must be above 0, got 0.0", "write 0.1", Code.OUT_OF_RANGE)
        key, instead = ("labels", "false") if self.labels else ("classes", '"as-drawn"')
        if self._by_class and self.real.spec().classes == 0:
            yield Problem(
                (key,),
                "requires labels of the real data, which has none",
                f"write {instead}",
                Code.MISSING_ATTRIBUTE,
            )
        if self._by_class and denoiser and not denoiser.settings.class_conditional:
            yield Problem(
                (key,),
                f'requires labels of the samples of "{self.fakes}", which have none: their '
                "denoiser is not conditional",
                f"write {instead}, or give its network class_conditional = true",
                Code.MISSING_ATTRIBUTE,
            )
        if denoiser and denoiser.spec.shape != self.real.spec().shape:
            yield Problem(
                ("fakes",),
                f'the samples of "{self.fakes}" have shape {denoiser.spec.shape}, '
                f"but the real items {self.real.spec().shape}",
                "name a stage whose denoiser was trained on data of this shape",
            )

    def drawn_by(self, earlier: Stages) -> str | None:
        stage = earlier.get(self.fakes)
        return stage.drawn_by(earlier) if stage else None

    def spec(self) -> DataSpec:
        real = self.real.spec()
        return DataSpec(real.shape, real.classes if self.labels else 0, realness=True)

    def load(self, inputs: Inputs) -> Batch:
        real, fake = self.real.load(inputs), inputs.read(self.fakes, Samples).batch
        real = self._part(real.with_data(as_stored(real.data, "image")), "image")
        fake = self._part(fake, f'sample of "{self.fakes}"')
        if real.data.shape[1:] != fake.data.shape[1:]:
            raise DataError(
                f'the samples of "{self.fakes}" have shape {tuple(fake.data.shape[1:])}, '
                f"but the real items {tuple(real.data.shape[1:])}",
                Code.WRONG_SHAPE,
            )
        count = max(len(real), len(fake))
        chosen = [_spread(torch.arange(len(batch)), count) for batch in (real, fake)]
        labels = None
        if self._by_class and real.labels is not None and fake.labels is not None:
            self._require_classes(real.labels, fake.labels)
            if self.classes != "as-drawn":
                shares = real.labels[chosen[0]].bincount()
                if self.classes == "balanced":
                    shares = _balanced(shares > 0, count)
                chosen = [_of_classes(known, shares) for known in (real.labels, fake.labels)]
            labels = torch.cat([real.labels[chosen[0]], fake.labels[chosen[1]]])
        # Joined in place, and the samples dropped in between: three copies would fill a gigabyte.
        joined = real.data.new_empty(2 * count, *real.data.shape[1:])
        torch.index_select(fake.data, 0, chosen[1], out=joined[count:])
        del fake
        torch.index_select(real.data, 0, chosen[0], out=joined[:count])
        realness = torch.cat([torch.ones(count), torch.zeros(count)]).long()
        return Batch(joined, labels if self.labels else None, realness)

    def held_out_part(self) -> Dataset | None:
        return replace(self, part="held-out") if self.held_out else None

    @property
    def _by_class(self) -> bool:
        """Whether labels of both sources are used."""
        return self.labels or self.classes != "as-drawn"

    def _part(self, batch: Batch, what: str) -> Batch:
        """Return the items of the part of a source."""
        if self.held_out:
            # At random: samples are drawn with classes in turn, and each tenth may be of one class.
            order = torch.randperm(len(batch), generator=generator(0, "held out", what))
            count = round(self.held_out * len(batch))
            kept = order[:count] if self.part == "held-out" else order[count:]
            batch = batch[kept.sort().values]
        if len(batch) == 0:
            raise DataError(f"the {self.part} part has no {what}", Code.WRONG_LENGTH)
        if self._by_class and batch.labels is None:
            raise DataError(
                f"no {what} has a label; write labels = false and leave classes out",
                Code.MISSING_ATTRIBUTE,
            )
        return batch

    def _require_classes(self, real: Tensor, fake: Tensor) -> None:
        """Raise DataError where a class of one source is absent from the other."""
        found = [set(labels.tolist()) for labels in (real, fake)]
        for here, there, what in ((0, 1, f'samples of "{self.fakes}"'), (1, 0, "real items")):
            if absent := sorted(found[here] - found[there]):
                raise DataError(
                    f"the {what} must have every class of the others, got none of class "
                    f"{', '.join(map(str, absent[:5]))}: the class would tell the two apart; "
                    "use more items",
                    Code.MISSING_ATTRIBUTE,
                )


def _spread(items: Tensor, count: int) -> Tensor:
    """Return so many of some indices, each equally often or once more, in their order."""
    return items[torch.arange(count) * len(items) // count]


def _balanced(occurs: Tensor, count: int) -> Tensor:
    """Return the number of items of each class, equal or one more, ``[classes]``."""
    numbers = torch.zeros(len(occurs), dtype=torch.int64)
    classes = occurs.nonzero().flatten()
    numbers[classes] = count // len(classes)
    numbers[classes[: count % len(classes)]] += 1
    return numbers


def _of_classes(labels: Tensor, numbers: Tensor) -> Tensor:
    """Return indices with a number of items of each class, in their order."""
    parts = [
        _spread((labels == label).nonzero().flatten(), number)
        for label, number in enumerate(numbers.tolist())
        if number
    ]
    return torch.cat(parts).sort().values
