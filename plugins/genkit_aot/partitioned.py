"""Pairs inside each class, so that a class still sees noise from N(0, I)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genkit.errors import DataError, Problem
from genkit.interfaces import Coupler, Stages
from genkit.random import generator as derived_generator
from genkit.settings import setting, shown
from genkit.tensors import require_finite, require_same_length
from genkit.types import Batch, Pairs
from genkit_aot.hungarian import Hungarian

By = Literal["label", "source"]

ATTRIBUTE: dict[By, str] = {"label": "labels", "source": "sources"}
"""The attribute of a batch behind each value of ``by``."""


@dataclass(frozen=True, kw_only=True)
class Partitioned(Coupler):
    """Another coupler, applied to each class apart, or to real and generated images apart.

    A part is dealt the noise at its own positions, which was drawn independently of what lies
    there; pairing inside the part permutes it, and so leaves the noise of a class at N(0, I).
    """

    source = "EDM-AOT, arXiv 2403.05069, section 3, for each class"

    by: tuple[By, ...] = setting(
        ("label",), doc="what the images of one part have in common: label, source, or both"
    )
    inner: Coupler = setting(Hungarian(), doc="pairs the images and the noise of one part")

    @property
    def bijective(self) -> bool:
        return self.inner.bijective

    @property
    def preserves_noise_marginal(self) -> bool:
        return self.inner.preserves_noise_marginal

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        mine = {ATTRIBUTE[by] for by in self.by} if self.inner.preserves_noise_marginal else set()
        return self.inner.preserves_conditional_prior | mine

    @property
    def requires(self) -> frozenset[str]:
        return self.inner.requires | {ATTRIBUTE[by] for by in self.by}

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.by:
            yield Problem(("by",), "names nothing to part the pool by", 'write ["label"]')
        for index, by in enumerate(self.by):
            if by in self.by[:index]:
                yield Problem(("by", index), f"{shown(by)} is named twice", "name it once")
        if isinstance(self.inner, Partitioned):
            for index, by in enumerate(self.inner.by):
                if by in self.by:
                    yield Problem(
                        ("inner", "by", index),
                        f"the pool is already parted by {shown(by)}",
                        "name it in one of the two",
                    )

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        require_same_length(batch, noise)
        require_finite(batch.data, "image")  # here, where an index is still one of the pool
        require_finite(noise, "noise")
        # A part's random stream follows from its label and not from the parts beside it.
        seed = int(torch.randint(2**62, (), generator=generator))
        data_index, noise_index = [], []
        for values, members in self._parts(batch):
            own = derived_generator(seed, "part", *values)
            try:
                pairs = self.inner.pair(batch[members], noise[members], own)
            except DataError as error:
                names = ", ".join(f"{b} {v}" for b, v in zip(self.by, values, strict=True))
                raise DataError(f"in the part of {names}: {error}") from error
            data_index.append(members[pairs.data])
            noise_index.append(members[pairs.noise])
        data, order = torch.cat(data_index).sort(stable=True)
        return Pairs(data, torch.cat(noise_index)[order])

    def _parts(self, batch: Batch) -> Iterator[tuple[list[int], Tensor]]:
        """Yield what each part has in common, and the positions of its members."""
        columns = []
        for by in self.by:
            column = getattr(batch, ATTRIBUTE[by])
            if column is None:
                raise DataError(
                    f"the pool is parted by {by}, and this data has no {ATTRIBUTE[by]}; "
                    f"leave {shown(by)} out of by, or choose data that has them"
                )
            columns.append(column.cpu())
        values, part, sizes = torch.unique(
            torch.stack(columns, dim=1), dim=0, return_inverse=True, return_counts=True
        )
        members = part.argsort(stable=True).split(sizes.tolist())
        yield from zip(values.tolist(), members, strict=True)
