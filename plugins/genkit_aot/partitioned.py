"""The coupler ``partitioned``, which couples within groups, whose noise thus stays N(0, I)."""

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
"""The attribute of a batch for each value of ``by``."""

MIN_THREAD_SIZE = 128
"""Minimum number of images of a group that is solved in its own thread; chosen, not tuned."""


@dataclass(frozen=True)
class _Group:
    """A part of the pool that is coupled on its own.

    Attributes:
        values: common values that its images have for the attributes in ``by``.
        members: positions of its images in the pool, ascending.
        noises: positions of the noise samples drawn for these images.
    """

    values: list[int]
    members: Tensor
    noises: Tensor


@dataclass(frozen=True, kw_only=True)
class Partitioned(Coupler):
    """Applies another coupler within each class, or to real and generated images separately.

    A group gets the noise samples at the positions of its images, which are independent of the
    images. The inner coupler permutes them within the group, so the noise of the group stays
    N(0, I). On the CPU, large groups are solved in parallel threads.
    """

    source = "EDM-AOT, arXiv 2403.05069, section 3, within each class"

    by: tuple[By, ...] = setting(
        ("label",),
        renamed={"source": "realness"},
        doc="attributes that define the groups: label, realness (real or generated), or both",
    )
    inner: Coupler = setting(Hungarian(), doc="coupler within each group")

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
                ("by",),
                "must have at least one attribute, got none",
                'write ["label"]',
                Code.WRONG_LENGTH,
            )
        for index, by in enumerate(self.by):
            if by in self.by[:index]:
                yield Problem(
                    ("by", index),
                    f"must differ from the other entries, got {quote(by)} twice",
                    "write it once",
                    Code.DUPLICATE,
                )
        if isinstance(self.inner, Partitioned):
            for index, by in enumerate(self.inner.by):
                if by in self.by:
                    yield Problem(
                        ("inner", "by", index),
                        f"must differ from by of the outer coupler, got {quote(by)} in both",
                        "write it in only one of the two",
                        Code.DUPLICATE,
                    )

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        return BoundPartitioned(self, self.inner).pair(batch, noise, generator)


@dataclass(frozen=True)
class BoundPartitioned:
    """The coupler, with its inner coupler bound.

    Attributes:
        settings: settings of the coupler.
        inner: bound coupler of one group.
    """

    settings: Partitioned
    inner: BoundCoupler

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair each group of a pool, see :meth:`Coupler.pair`."""
        settings, inner = self.settings, self.settings.inner
        noises_per_image = settings.noises_per_image
        require_same_length(batch, noise, noises_per_image)
        # Checked here, so that errors contain the index in the pool rather than in a group.
        require_finite(batch.data, "image")
        require_finite(noise, "noise")
        # A group's random numbers depend on its label, but not on other groups.
        seed = int(torch.randint(2**62, (), generator=generator))
        groups = list(_groups(batch, settings.by, noises_per_image))

        def solve(group: _Group) -> Pairs:
            if len(group.members) == 1 and settings.bijective and noises_per_image == 1:
                return Pairs(torch.zeros(1).long(), torch.zeros(1).long(), gap=0.0)
            own = derived_generator(seed, "part", *group.values)
            try:
                images, samples = batch[group.members], noise[group.noises]
                return pairs_of(inner, self.inner, images, samples, own)
            except DataError as error:
                values = zip(settings.by, group.values, strict=True)
                names = ", ".join(f"{by} {value}" for by, value in values)
                raise DataError(f"in the group of {names}: {error}", error.code) from error

        # Solvers release the interpreter lock. Results and errors are in the order of the groups.
        # No threads for a GPU: it runs one group after another, on the calling thread's stream.
        large = sum(len(group.members) >= MIN_THREAD_SIZE for group in groups)
        workers = min(large, os.cpu_count() or 1)
        if workers > 1 and batch.data.device.type == "cpu":
            with ThreadPoolExecutor(workers, thread_name_prefix="part") as threads:
                results = list(threads.map(solve, groups))
        else:
            results = [solve(group) for group in groups]
        return _join(groups, results)


def _groups(batch: Batch, attributes: tuple[By, ...], noises_per_image: int) -> Iterator[_Group]:
    """Yield the groups of a pool, by ascending values of the attributes."""
    columns = []
    for by in attributes:
        column = getattr(batch, ATTRIBUTE[by])
        if column is None:
            raise DataError(
                f"by = [{quote(by)}] requires {ATTRIBUTE[by]}, but the data has none; "
                f"remove {quote(by)}, or choose data that has them",
                Code.MISSING_ATTRIBUTE,
            )
        columns.append(column.cpu())
    values, group, sizes = torch.unique(
        torch.stack(columns, dim=1), dim=0, return_inverse=True, return_counts=True
    )
    offsets = torch.arange(noises_per_image)
    members = group.argsort(stable=True).split(sizes.tolist())
    for common, own in zip(values.tolist(), members, strict=True):
        yield _Group(common, own, (own[:, None] * len(offsets) + offsets).flatten())


def _join(groups: list[_Group], results: list[Pairs]) -> Pairs:
    """Return the pairs of all groups in the order of the pool."""
    matches = list(zip(groups, results, strict=True))
    data = torch.cat([group.members[pairs.data] for group, pairs in matches])
    noise = torch.cat([group.noises[pairs.noise] for group, pairs in matches])
    data, order = data.sort(stable=True)
    sizes = tuple(size for pairs in results for size in pairs.parts or (len(pairs),))
    gaps = [pairs.gap for pairs in results if pairs.gap is not None]
    # Each group costs at most (1 + its gap) times its minimum, so the largest gap bounds the total.
    gap = max(gaps) if len(gaps) == len(results) else None
    return Pairs(data, noise[order], gap, sizes, _entropy(results))


def _entropy(results: list[Pairs]) -> float | None:
    """Return the renormalized entropy of the combined plan; None if it is None for a group.

    Groups of one image are excluded: they have only one possible pair, whose entropy is 0.
    """
    large = [pairs for pairs in results if len(pairs) > 1]
    entropies = [(len(pairs), pairs.entropy) for pairs in large if pairs.entropy is not None]
    if not entropies or len(entropies) < len(large):
        return None
    count = sum(len(pairs) for pairs in results)
    return sum(size * math.log(size) * e for size, e in entropies) / (count * math.log(count))
