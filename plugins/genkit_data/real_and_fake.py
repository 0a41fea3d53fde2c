"""A data set of real and generated images, on which a discriminator is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from genkit.artifacts import Samples, SamplesRef
from genkit.designs import design_behind
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Dataset, Inputs, SamplingStage, Stages
from genkit.random import generator
from genkit.settings import setting
from genkit.tensors import as_stored
from genkit.types import Batch, DataSpec

Classes = Literal["as-drawn", "as-real", "balanced"]
Part = Literal["training", "held-out"]


@dataclass(frozen=True, kw_only=True)
class RealAndFake(Dataset):
    """A data set (realness 1) joined with the samples of an earlier stage (realness 0).

    Discriminator guidance uses d / (1 - d) as p_real / p_fake, which holds if real and generated
    items are equally likely. So the items of the smaller group are repeated until both groups have
    the same size; the numbers of repetitions differ by at most 1. All images are rounded to 8 bits,
    so that the discriminator cannot distinguish them by their precision.

    ``classes`` determines the share of each class. If the shares of real and generated items
    differ, an unconditional discriminator learns the difference as well.
    """

    source = "Discriminator guidance, arXiv 2211.17091, section 3"

    real: Dataset = setting(doc="real items", inherit="data")
    fakes: SamplesRef = setting(doc="id of the stage that drew the generated items")
    labels: bool = setting(
        False, doc="keep the class labels; requires labels of real and generated items"
    )
    classes: Classes = setting(
        "as-drawn",
        doc="share of each class. as-drawn: unchanged; as-real: generated items have the shares of "
        "the real items; balanced: equal shares among real and among generated items",
    )
    held_out: float = setting(
        0.0,
        doc="share of the items, real and generated, that is held out from training to evaluate "
        "the discriminator",
        at_least=0,
        below=1,
    )
    part: Part = setting("training", doc="items to load: training or held-out")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        denoiser = design_behind(self.fakes, earlier)
        if self.part == "held-out" and not self.held_out:
            yield Problem(("held_out",), "must be above 0, got 0.0", "write 0.1", Code.OUT_OF_RANGE)
        key, default = ("labels", "false") if self.labels else ("classes", '"as-drawn"')
        if self._by_class and self.real.spec().classes == 0:
            yield Problem(
                (key,),
                "requires labels of the real data, but it has none",
                f"write {key} = {default}",
                Code.MISSING_ATTRIBUTE,
            )
        if self._by_class and denoiser and not denoiser.settings.class_conditional:
            yield Problem(
                (key,),
                f'requires labels of the samples of "{self.fakes}", but their denoiser is not '
                "class-conditional",
                f"write {key} = {default}, or class_conditional = true in the denoiser's network",
                Code.MISSING_ATTRIBUTE,
            )
        if denoiser and denoiser.spec.shape != self.real.spec().shape:
            yield Problem(
                ("fakes",),
                f"must be samples of the shape of the real items, {self.real.spec().shape}, got "
                f"{denoiser.spec.shape}",
                "name a stage whose denoiser was trained on data of this shape",
            )
        if isinstance(stage := earlier.get(self.fakes), SamplingStage):
            try:
                self._held_out_count(self._fake, stage.count)
            except DataError as error:
                yield Problem(("held_out",), str(error), code=error.code)

    def drawn_by(self, earlier: Stages) -> str | None:
        stage = earlier.get(self.fakes)
        return stage.drawn_by(earlier) if stage else None

    def spec(self) -> DataSpec:
        real = self.real.spec()
        return DataSpec(real.shape, real.classes if self.labels else 0, realness=True)

    def load(self, inputs: Inputs) -> Batch:
        real, fake = self.real.load(inputs), inputs.read(self.fakes, Samples).batch
        real = real.with_data(as_stored(real.data, "image"))
        kept_real, kept_fake = self._split(real, fake)
        real, fake = real[kept_real], fake[kept_fake]
        if real.data.shape[1:] != fake.data.shape[1:]:
            raise DataError(
                f'samples of "{self.fakes}" must have the shape of the real items, '
                f"{tuple(real.data.shape[1:])}, got {tuple(fake.data.shape[1:])}",
                Code.WRONG_SHAPE,
            )
        count = max(len(real), len(fake))
        indices = [_repeat(torch.arange(len(batch)), count) for batch in (real, fake)]
        labels = None
        if self._by_class and real.labels is not None and fake.labels is not None:
            if self.classes != "as-drawn":
                numbers = real.labels[indices[0]].bincount()
                if self.classes == "balanced":
                    numbers = _balance(numbers > 0, count)
                indices = [_select(of_part, numbers) for of_part in (real.labels, fake.labels)]
            labels = torch.cat([real.labels[indices[0]], fake.labels[indices[1]]])
        # Joined in place, and the samples are freed early: three copies would take a gigabyte.
        joined = real.data.new_empty(2 * count, *real.data.shape[1:])
        torch.index_select(fake.data, 0, indices[1], out=joined[count:])
        del fake
        torch.index_select(real.data, 0, indices[0], out=joined[:count])
        realness = torch.cat([torch.ones(count), torch.zeros(count)]).long()
        return Batch(joined, labels if self.labels else None, realness)

    def held_out_part(self) -> Dataset | None:
        return replace(self, part="held-out") if self.held_out else None

    @property
    def _fake(self) -> str:
        """Name of a generated item in messages."""
        return f'sample of "{self.fakes}"'

    @property
    def _by_class(self) -> bool:
        """Whether the labels of real and generated items are used."""
        return self.labels or self.classes != "as-drawn"

    def _split(self, real: Batch, fake: Batch) -> tuple[Tensor | slice, Tensor | slice]:
        """Return the indices of the real and of the generated items of the part to load.

        Both parts are checked, so that an invalid held-out part is reported before training.

        Raises:
            DataError: a part has no items, items have no labels, or a class is missing.
        """
        sources = (("image", real), (self._fake, fake))
        of_real, of_fake = (self._parts(what, len(batch)) for what, batch in sources)
        if self._by_class:
            real_labels, fake_labels = (_labels(what, batch) for what, batch in sources)
            for part in of_real:
                self._require_classes(part, real_labels[of_real[part]], fake_labels[of_fake[part]])
        return of_real[self.part], of_fake[self.part]

    def _parts(self, what: str, total: int) -> Mapping[Part, Tensor | slice]:
        """Return the indices of the items of each part, keyed by the name of the part.

        Args:
            what: name of an item in error messages; also determines the random split.
            total: number of all real or all generated items.

        Raises:
            DataError: a part has no items.
        """
        count = self._held_out_count(what, total)
        if not self.held_out:
            return {self.part: slice(None)}
        # The split is random: the classes of samples may be 0, 1, ..., 9, 0, 1, ..., so that every
        # tenth sample has the same class.
        order = torch.randperm(total, generator=generator(0, "held out", what))
        return {"training": order[count:].sort().values, "held-out": order[:count].sort().values}

    def _held_out_count(self, what: str, total: int) -> int:
        """Return the number of held-out items; arguments and errors are those of ``_parts``."""
        count = round(self.held_out * total)
        sizes = {"training": total - count} | ({"held-out": count} if self.held_out else {})
        for part, size in sizes.items():
            if size == 0:
                change = "smaller" if part == "training" else "larger"
                hint = f"write a {change} held_out, or use more items"
                raise DataError(
                    f"the {part} part must have items, got no {what}; "
                    f"{hint if self.held_out else 'use more items'}",
                    Code.WRONG_LENGTH,
                )
        return count

    def _require_classes(self, part: Part, real: Tensor, fake: Tensor) -> None:
        """Raise DataError unless the real and the generated items of a part have equal classes."""
        classes = [set(labels.tolist()) for labels in (real, fake)]
        remedy = "write a larger held_out, or use" if part == "held-out" else "use"
        for here, there, what in ((0, 1, f'samples of "{self.fakes}"'), (1, 0, "real items")):
            if absent := sorted(classes[here] - classes[there]):
                raise DataError(
                    f"real and generated items of the {part} part must have the same classes, got "
                    f"no class {', '.join(map(str, absent[:5]))} among the {what}; {remedy} more "
                    "items, since a missing class reveals the realness",
                    Code.MISSING_ATTRIBUTE,
                )


def _labels(what: str, batch: Batch) -> Tensor:
    """Return the labels of items; raise DataError with the name of an item if there are none."""
    if batch.labels is None:
        raise DataError(
            f"{what} must have a label, got none; write labels = false and remove classes",
            Code.MISSING_ATTRIBUTE,
        )
    return batch.labels


def _repeat(indices: Tensor, count: int) -> Tensor:
    """Repeat indices to length ``count``, in order; repetitions differ in number by at most 1."""
    return indices[torch.arange(count) * len(indices) // count]


def _balance(occurs: Tensor, count: int) -> Tensor:
    """Divide ``count`` items among the classes that occur; their numbers differ by at most 1.

    Args:
        occurs: whether each class occurs, ``[classes]`` bool; other classes have 0 items.
        count: sum of the numbers.

    Returns:
        Numbers of items, ``[classes]`` int64.
    """
    numbers = torch.zeros(len(occurs), dtype=torch.int64)
    classes = occurs.nonzero().flatten()
    numbers[classes] = count // len(classes)
    numbers[classes[: count % len(classes)]] += 1
    return numbers


def _select(labels: Tensor, numbers: Tensor) -> Tensor:
    """Return sorted indices of items, repeated if necessary: ``numbers[k]`` of class k."""
    parts = [
        _repeat((labels == label).nonzero().flatten(), number)
        for label, number in enumerate(numbers.tolist())
        if number
    ]
    return torch.cat(parts).sort().values
