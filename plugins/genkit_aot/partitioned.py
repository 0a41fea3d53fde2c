"""Pairs inside each class, so that a class still sees noise from N(0, I)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import BoundCoupler, Coupler, Inputs, Stages
from genkit.pairs import pairs_of
from genkit.random import generator as derived_generator
from genkit.settings import quote, setting
from genkit.tensors import require_finite, require_same_length
from genkit.types import Batch, Pairs
from genkit_aot.hungarian import Hungarian

By = Literal["label", "realness"]

ATTRIBUTE: dict[By, str] = {"label": "labels", "realness": "realness"}
"""The attribute of a batch behind each value of ``by``."""

WORTH_A_THREAD = 128
"""Images in a part from which on solving it beside another saves more than a thread costs."""


@dataclass(frozen=True)
class _Part:
    """What is solved apart from the rest of the pool.

    Attributes:
        values: what its images have in common, one for each of ``by``.
        members: their positions in the pool, rising.
        noises: positions of the noise that was drawn for them.
    """

    values: list[int]
    members: Tensor
    noises: Tensor


@dataclass(frozen=True, kw_only=True)
class Partitioned(Coupler):
    """Another coupler, applied to each class apart, or to real and generated images apart.

    A part is dealt the noise at its own positions, which was drawn independently of what lies
    there; pairing inside the part permutes it, and so leaves the noise of a class at N(0, I).
    On the CPU large parts are solved beside each other, in threads.
    """

    source = "EDM-AOT, arXiv 2403.05069, section 3, for each class"

    by: tuple[By, ...] = setting(
        ("label",),
        doc="what the images of a part share: label, realness (real or generated), or both",
    )
    inner: Coupler = setting(Hungarian(), doc="pairs the images and the noise of one part")

    @property
    def bijective(self) -> bool:
        return self.inner.bijective

    @property
    def preserves_noise_marginal(self) -> bool:
        return self.inner.preserves_noise_marginal

    @property
    def independent(self) -> bool:
        return self.inner.independent

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        mine = {ATTRIBUTE[by] for by in self.by} if self.inner.preserves_noise_marginal else set()
        return self.inner.preserves_conditional_prior | mine

    @property
    def requires(self) -> frozenset[str]:
        return self.inner.requires | {ATTRIBUTE[by] for by in self.by}

    @property
    def noises_per_image(self) -> int:
        return self.inner.noises_per_image

    def bind(self, inputs: Inputs) -> BoundPartitioned:
        return BoundPartitioned(self, self.inner.bind(inputs))

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.by:
            yield Problem(
                ("by",), "names nothing to part the pool by", 'write ["label"]', Code.WRONG_LENGTH
            )
        for index, by in enumerate(self.by):
            if by in self.by[:index]:
                yield Problem(
                    ("by", index), f"{quote(by)} is named twice", "name it once", Code.DUPLICATE
                )
        if isinstance(self.inner, Partitioned):
            for index, by in enumerate(self.inner.by):
                if by in self.by:
                    yield Problem(
                        ("inner", "by", index),
                        f"the pool is already parted by {quote(by)}",
                        "name it in one of the two",
                        Code.DUPLICATE,
                    )

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        return BoundPartitioned(self, self.inner).pair(batch, noise, generator)


@dataclass(frozen=True)
class BoundPartitioned:
    """The coupler with its bound inner coupler.

    Attributes:
        settings: coupler as the recipe has it.
        inner: object that pairs one part.
    """

    settings: Partitioned
    inner: BoundCoupler

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair each part of a pool, see :meth:`Coupler.pair`."""
        settings, inner = self.settings, self.settings.inner
        several = settings.noises_per_image
        require_same_length(batch, noise, several)
        require_finite(batch.data, "image")  # here, where an index is still one of the pool
        require_finite(noise, "noise")
        # A part's random stream follows from its label and not from the parts beside it.
        seed = int(torch.randint(2**62, (), generator=generator))
        parts = list(_parts(batch, settings.by, several))

        def solved(part: _Part) -> Pairs:
            if len(part.members) == 1 and settings.bijective and several == 1:
                return Pairs(torch.zeros(1).long(), torch.zeros(1).long(), gap=0.0)
            own = derived_generator(seed, "part", *part.values)
            try:
                images, assigned = batch[part.members], noise[part.noises]
                return pairs_of(inner, self.inner, images, assigned, own)
            except DataError as error:
                names = ", ".join(f"{b} {v}" for b, v in zip(settings.by, part.values, strict=True))
                raise DataError(f"in the part of {names}: {error}", error.code) from error

        # Solvers release the interpreter lock. Results and errors come in the order of the parts.
        # A GPU takes one part after another anyway, on a stream that is the calling thread's own.
        worth = sum(len(part.members) >= WORTH_A_THREAD for part in parts)
        workers = min(worth, os.cpu_count() or 1)
        if workers > 1 and batch.data.device.type == "cpu":
            with ThreadPoolExecutor(workers, thread_name_prefix="part") as threads:
                found = list(threads.map(solved, parts))
        else:
            found = [solved(part) for part in parts]
        return _joined(parts, found)


def _parts(batch: Batch, attributes: tuple[By, ...], noises_per_image: int) -> Iterator[_Part]:
    """Yield the parts of a pool, by rising values of the attributes."""
    columns = []
    for by in attributes:
        column = getattr(batch, ATTRIBUTE[by])
        if column is None:
            raise DataError(
                f"the pool is parted by {by}, and this data has no {ATTRIBUTE[by]}; "
                f"leave {quote(by)} out of by, or choose data that has them",
                Code.MISSING_ATTRIBUTE,
            )
        columns.append(column.cpu())
    values, part, sizes = torch.unique(
        torch.stack(columns, dim=1), dim=0, return_inverse=True, return_counts=True
    )
    each = torch.arange(noises_per_image)
    members = part.argsort(stable=True).split(sizes.tolist())
    for common, own in zip(values.tolist(), members, strict=True):
        yield _Part(common, own, (own[:, None] * len(each) + each).flatten())


def _joined(parts: list[_Part], found: list[Pairs]) -> Pairs:
    """Return the pairs of all parts in the order of the pool."""
    data = torch.cat([part.members[pairs.data] for part, pairs in zip(parts, found, strict=True)])
    noise = torch.cat([part.noises[pairs.noise] for part, pairs in zip(parts, found, strict=True)])
    data, order = data.sort(stable=True)
    sizes = tuple(size for pairs in found for size in pairs.parts or (len(pairs),))
    gaps = [pairs.gap for pairs in found if pairs.gap is not None]
    # Each part costs at most 1 + its gap times the least, so all of them at most 1 + the largest.
    gap = max(gaps) if len(gaps) == len(found) else None
    return Pairs(data, noise[order], gap, sizes, _entropy(found))


def _entropy(found: list[Pairs]) -> float | None:
    """Return the renormalized entropy of the plans of all parts together; a part of 1 has none."""
    several = [pairs for pairs in found if len(pairs) > 1]
    known = [(len(pairs), pairs.entropy) for pairs in several if pairs.entropy is not None]
    if not known or len(known) < len(several):
        return None
    count = sum(len(pairs) for pairs in found)
    return sum(size * math.log(size) * own for size, own in known) / (count * math.log(count))
