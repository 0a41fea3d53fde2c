"""A condition penalty in the cost of a pair (C2OT, arXiv 2503.10636)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Coupler, Stages
from genkit.settings import setting
from genkit.tensors import Cost, pairwise_cost, require_finite, require_same_length
from genkit.types import Batch, Pairs
from genkit_aot.assignment import assign
from genkit_aot.entropic import Costs
from genkit_aot.hungarian import Hungarian
from genkit_aot.partitioned import Partitioned

By = Literal["label", "embedding"]
CANDIDATES = 0.01


@dataclass(frozen=True, kw_only=True)
class Conditional(Coupler):
    """The assignment of least total distance, where noise is dear to images of other conditions.

    A noise carries the condition of the image at its own position, which it was drawn
    independently of. A pair costs its distance plus ``weight`` times how far the two conditions
    are apart: 1 for two labels that differ, 1 minus the cosine for two embeddings.

    Without a weight, pairs across labels are forbidden: the noise of a class stays N(0, I). Any
    finite weight lets some noise cross over, and skews the noise of a condition a little; it is
    for embeddings, of which hardly two are alike, so that there are no classes to keep to.
    """

    source = "C2OT, arXiv 2503.10636"
    bijective = True

    cost: Cost = setting(
        "euclidean",
        doc="distance of a pair: between image and unit-variance noise, or its square",
    )
    by: By = setting("label", doc="the condition: label, or the vector that describes an item")
    weight: float | None = setting(
        None,
        doc="cost of conditions one apart, in standard deviations of the pool's distances; left "
        "out, labels are never mixed, and candidates tells how far embeddings are",
        at_least=0,
        at_most=1e4,
    )
    candidates: float = setting(
        CANDIDATES,
        doc="share of all pairs of an image and a noise that cost no more than the image and its "
        "own noise, which the weight of embeddings is chosen for in each pool; about 0.5 without "
        "a penalty",
        above=0,
        at_most=1,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.candidates != CANDIDATES and (self.by == "label" or self.weight is not None):
            yield Problem(
                ("candidates",),
                "chooses the weight of embeddings, and here "
                + ("there are none" if self.by == "label" else "the weight is given"),
                "leave it out",
            )

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        return frozenset({"labels"} if self._forbids else ())

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels" if self.by == "label" else "embeddings"})

    @property
    def _forbids(self) -> bool:
        return self.by == "label" and self.weight is None

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        if self._forbids:
            # What is forbidden never has to be priced: each class is a problem of its own.
            return Partitioned(inner=Hungarian(cost=self.cost)).pair(batch, noise, generator)
        require_same_length(batch, noise)
        apart = self._apart(batch)
        cost = pairwise_cost(batch.data, noise, self.cost)
        if self.weight is None:
            weight = adaptive_weight(cost, apart, self.candidates)
        else:
            weight = self.weight * float(cost.std(correction=0))
        priced = cost.add_(apart, alpha=weight)
        require_finite(priced, "the cost of image")
        permutation, gap = assign(_Priced(batch.data, noise, priced))
        return Pairs(torch.arange(len(batch)), permutation, gap)

    def _apart(self, batch: Batch) -> Tensor:
        """Return how far the conditions of every two items are apart, ``[N, N]`` in [0, 2]."""
        if self.by == "label":
            if batch.labels is None:
                raise _missing("labels", "label")
            return (batch.labels[:, None] != batch.labels[None, :]).float()
        if batch.embeddings is None:
            raise _missing("embeddings", "embedding")
        require_finite(batch.embeddings, "embedding")
        wide = batch.embeddings.to(torch.promote_types(batch.embeddings.dtype, torch.float32))
        # Scaled first, as the norm of large values overflows; a vector of zeros stays one.
        scaled = wide / wide.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(wide.dtype).tiny)
        unit = torch.nn.functional.normalize(scaled, dim=1)
        # Half the squared distance of unit vectors is 1 minus their cosine, up to rounding.
        apart = pairwise_cost(unit, unit, "squared") / 2
        return apart.masked_fill_(apart < 1e-6, 0)


class _Priced(Costs):
    """The costs of a pool that is priced already, ``[N, N]``."""

    def __init__(self, images: Tensor, noise: Tensor, priced: Tensor) -> None:
        self._priced = priced
        super().__init__(images, noise)

    def _computed(self, rows: slice, out: Tensor | None) -> Tensor:
        return self._priced[rows] if out is None else out.copy_(self._priced[rows])


def adaptive_weight(cost: Tensor, apart: Tensor, candidates: float) -> float:
    """Return the weight that leaves a share of all pairs as candidates.

    A pair of image i and noise j is one where ``cost[i, j] + weight * apart[i, j]`` is at most
    ``cost[i, i]``, what the image costs with its own noise; else an optimal pairing hardly takes
    it. As each pair has a weight up to which it is one, the weight is a quantile of these.

    Args:
        cost: ``[N, N]`` distance of image i and noise j.
        apart: ``[N, N]`` how far the conditions of i and j are apart, 0 for equal ones.
        candidates: the share, in (0, 1].

    Returns:
        The weight; 0 where even without a penalty no more pairs are candidates.
    """
    gain = cost.diagonal()[:, None] - cost
    differ = apart > 0  # where conditions are equal, no weight keeps a pair from gaining
    limits = (gain / apart)[differ]
    always = int((gain[~differ] >= 0).sum())
    wanted = max(round(candidates * cost.numel()) - always, 1)
    if wanted > len(limits):
        return 0.0
    return max(float(limits.kthvalue(len(limits) - wanted + 1).values), 0.0)


def _missing(attribute: str, by: str) -> DataError:
    return DataError(
        f"conditions are compared by {by}, and this data has no {attribute}; "
        "choose data that has them, or hungarian for data without conditions",
        Code.MISSING_ATTRIBUTE,
    )
