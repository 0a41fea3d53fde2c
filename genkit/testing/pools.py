"""Pools for the contract tests of couplers, and the coupler under test."""

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
"""Shape of an item; height and width differ, so that a mix-up is detected."""

ATTRIBUTES = ("labels", "realness", "embeddings")
"""Attributes that ``requires`` and ``preserves_conditional_prior`` of a coupler may contain."""

Ready = Callable[[Batch, Tensor, torch.Generator], Pairs]
"""Function from a batch, noise and a generator to pairs, for a bound coupler of either kind."""

Fit = Callable[[Batch], BoundCoupler | BoundDatasetCoupler]


def pool(size: int, index: int = 0) -> Batch:
    """Return images of two separated classes, each real or generated, with embeddings."""
    g = generator(0, "laws of couplers", size, index)
    labels = torch.randint(2, (size,), generator=g)
    realness = torch.randint(2, (size,), generator=g)
    centre = 3.0 * labels + 2.0 * realness - 1.0
    data = torch.randn((size, *SHAPE), generator=g) + centre.reshape(-1, 1, 1, 1)
    embeddings = torch.randn((size, 4), generator=g)
    embeddings[:, 0] += centre - 1.5
    return Batch(data, labels, realness, embeddings=embeddings)


def noise_for(coupler: AnyCoupler, batch: Batch, index: int = 0) -> Tensor:
    """Return the noise that a coupler requires for a batch, ``[M, *SHAPE]``."""
    # A dataset coupler accepts any number of noise samples, here more than there are images.
    several = coupler.noises_per_image if isinstance(coupler, Coupler) else 1
    count = len(batch) * several + 3 * isinstance(coupler, DatasetCoupler)
    return torch.randn((count, *SHAPE), generator=generator(0, "noise", count, index))


def pair(ready: Ready, batch: Batch, noise: Tensor, index: int = 0) -> Pairs:
    """Return the pairs of a coupler, with a generator that depends on ``index``."""
    return ready(batch, noise, generator(0, "pairs", index))


def same(one: Pairs, other: Pairs) -> bool:
    """Return whether two results contain the same pairs in the same order."""
    return torch.equal(one.data, other.data) and torch.equal(one.noise, other.noise)


def hard_pools() -> list[Batch]:
    """Return pools of 1 to 200 images, one with a class of a single image, two with duplicates."""
    lone, twins = pool(6), pool(8)
    return [
        # A coupler may use another algorithm for large pools than for small ones.
        *(pool(size) for size in (1, 2, 5, 16, 200)),
        replace(lone, labels=torch.tensor([0, 0, 1, 0, 0, 0])),
        twins.with_data(twins.data[:1].expand_as(twins.data)),
        twins[torch.arange(8) // 2],
    ]


@dataclass(frozen=True)
class Subject:
    """The coupler under test.

    Attributes:
        settings: coupler to check.
        fit: function from a batch to the bound coupler; None to call ``settings.bind``.
    """

    settings: AnyCoupler
    fit: Fit | None

    def ready(self, batch: Batch) -> Ready:
        """Return the bound coupler for a batch, as a function."""
        if self.fit is None:
            bound: object = self.settings.bind(no_stages(self.settings))
        else:
            bound = self.fit(batch)
        method = "choose" if isinstance(self.settings, DatasetCoupler) else "pair"
        maker = "bind" if self.fit is None else "fit"
        law = f"bound-method: {maker} returns an object with the method {method}"
        self.require(callable(getattr(bound, method, None)), law, type(bound).__name__)
        call: Callable[..., Any] = getattr(bound, method)
        if method == "pair":
            return call
        return lambda data, noise, g: Pairs(call(data, noise, g), torch.arange(len(noise)))

    def refusal(self, batch: Batch, noise: Tensor) -> str | None:
        """Return the message of the DataError that coupling raises; None if it raises none."""
        try:
            pair(self.ready(batch), batch, noise)
        except DataError as error:
            return str(error)
        return None

    def require(self, holds: bool, law: str, seen: object) -> None:
        """Raise LawBroken unless a law holds."""
        require(holds, self.settings, law, seen)


def no_stages(coupler: AnyCoupler) -> NoStages:
    """Return the inputs of a coupler that is checked without earlier stages."""
    law = "needs-fit: check_coupler is called with fit if the coupler reads an earlier stage"
    return NoStages(refusal=lambda stage: LawBroken(coupler, law, f"bind reads {stage!r}"))
