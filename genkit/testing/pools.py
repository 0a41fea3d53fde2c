"""Pools on which the laws of couplers are checked, and the coupler that pairs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from genkit.errors import DataError
from genkit.interfaces import AnyCoupler, BoundCoupler, BoundDatasetCoupler, Coupler, DatasetCoupler
from genkit.parts.no_stages import NoStages
from genkit.random import generator
from genkit.testing.laws import LawBroken, require
from genkit.types import Batch, Pairs

SHAPE = (1, 2, 3)
"""Of an item in the laws; height and width differ, so that a mix-up shows."""

ATTRIBUTES = ("labels", "realness", "embeddings")
"""What a coupler may require of a batch, or keep the prior given it."""

Ready = Callable[[Batch, Tensor, torch.Generator], Pairs]
"""A bound coupler of either base as one function."""

Fit = Callable[[Batch], BoundCoupler | BoundDatasetCoupler]


def pool(size: int, index: int = 0) -> Batch:
    """Return images of two classes that lie apart, half of them real, each with an embedding."""
    g = generator(0, "laws of couplers", size, index)
    labels = torch.randint(2, (size,), generator=g)
    realness = torch.randint(2, (size,), generator=g)
    centre = 3.0 * labels + 2.0 * realness - 1.0
    data = torch.randn((size, *SHAPE), generator=g) + centre.reshape(-1, 1, 1, 1)
    embeddings = torch.randn((size, 4), generator=g)
    embeddings[:, 0] += centre - 1.5
    return Batch(data, labels, realness, embeddings=embeddings)


def noise_for(coupler: AnyCoupler, batch: Batch, index: int = 0) -> Tensor:
    """Return as much noise as a coupler takes for a batch, ``[M, *SHAPE]``."""
    # A dataset coupler takes any number; here another than that of the images.
    several = coupler.noises_per_image if isinstance(coupler, Coupler) else 1
    count = len(batch) * several + 3 * isinstance(coupler, DatasetCoupler)
    return torch.randn((count, *SHAPE), generator=generator(0, "noise", count, index))


def pair(ready: Ready, batch: Batch, noise: Tensor, index: int = 0) -> Pairs:
    """Return the pairs that a coupler makes with the generator of an index."""
    return ready(batch, noise, generator(0, "pairs", index))


def same(one: Pairs, other: Pairs) -> bool:
    """Whether two sets of pairs are the same, in the same order."""
    return torch.equal(one.data, other.data) and torch.equal(one.noise, other.noise)


def hard_pools() -> list[Batch]:
    """Return pools of 1, 2 and more, with a class of a single member, and with duplicates."""
    lone, twins = pool(6), pool(8)
    return [
        # A coupler may solve a large pool in another way than a small one.
        *(pool(size) for size in (1, 2, 5, 16, 200)),
        replace(lone, labels=torch.tensor([0, 0, 1, 0, 0, 0])),
        twins.with_data(twins.data[:1].expand_as(twins.data)),
        twins[torch.arange(8) // 2],
    ]


@dataclass(frozen=True)
class Subject:
    """The coupler under the laws, made ready for each pool.

    Attributes:
        settings: the coupler as it was given.
        fit: returns the bound coupler of a batch; None where ``bind`` alone makes it ready.
    """

    settings: AnyCoupler
    fit: Fit | None

    def ready(self, batch: Batch) -> Ready:
        """Return the bound coupler of a batch, as a function."""
        if self.fit is None:
            bound: object = self.settings.bind(no_stages(self.settings))
        else:
            bound = self.fit(batch)
        method = "choose" if isinstance(self.settings, DatasetCoupler) else "pair"
        law = f"bound-method: {'bind' if self.fit is None else 'fit'} returns what has {method}"
        self.require(callable(getattr(bound, method, None)), law, type(bound).__name__)
        call: Callable[..., Any] = getattr(bound, method)
        if method == "pair":
            return call
        return lambda data, noise, g: Pairs(call(data, noise, g), torch.arange(len(noise)))

    def refusal(self, batch: Batch, noise: Tensor) -> str | None:
        """Return the message of the DataError that pairing raises, or None."""
        try:
            pair(self.ready(batch), batch, noise)
        except DataError as error:
            return str(error)
        return None

    def require(self, holds: bool, law: str, seen: object) -> None:
        """Raise LawBroken unless a law holds."""
        require(holds, self.settings, law, seen)


def no_stages(asking: AnyCoupler) -> NoStages:
    """Return the inputs of a coupler that is checked without earlier stages."""
    law = "needs-fit: one that needs an earlier stage is checked with check_coupler(..., fit=...)"
    return NoStages(refusal=lambda stage: LawBroken(asking, law, f"bind asked for {stage!r}"))
