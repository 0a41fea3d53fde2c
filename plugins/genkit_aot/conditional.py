"""Pairs with a penalty for different conditions (C2OT, arXiv 2503.10636)."""

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
"""Default share of pairs that are candidates; chosen, not tuned."""


@dataclass(frozen=True, kw_only=True)
class Conditional(Coupler):
    """Minimizes the total distance plus a penalty for pairs of different conditions.

    Each noise sample is labeled with the condition of the image at its position in the pool; the
    two are independent. The cost of a pair is its distance plus ``weight`` times the difference of
    the two conditions: 1 for different labels, 1 minus the cosine for embeddings.

    Without a weight, pairs with different labels are excluded, so that the noise of each class
    stays N(0, I). A finite weight allows some of these pairs, which changes the noise distribution
    of a class slightly. It is meant for embeddings, which nearly all differ and so do not define
    classes.
    """

    source = "C2OT, arXiv 2503.10636"
    bijective = True

    cost: Cost = setting(
        "euclidean",
        doc="Euclidean distance of image and unit-variance noise, or its square",
    )
    by: By = setting("label", doc="condition: the label or the embedding of an item")
    weight: float | None = setting(
        None,
        doc="penalty for a difference of 1, in standard deviations of the pool's distances; "
        "default: pairs of different labels are excluded; for embeddings, see `candidates`",
        at_least=0,
        at_most=1e4,
    )
    candidates: float = setting(
        CANDIDATES,
        doc="share of pairs of an image and a noise sample that cost at most as much as the image "
        "and the noise sample at its position; in each pool, the weight for embeddings is chosen "
        "to reach this share. Without a penalty it is about 0.5",
        above=0,
        at_most=1,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.candidates != CANDIDATES and (self.by == "label" or self.weight is not None):
            yield Problem(
                ("candidates",),
                "must be omitted, because it determines the weight for embeddings, but "
                + ('by is "label"' if self.by == "label" else "weight is set"),
                "remove it",
            )

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        return frozenset({"labels"} if self._excludes else ())

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels" if self.by == "label" else "embeddings"})

    @property
    def _excludes(self) -> bool:
        return self.by == "label" and self.weight is None

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        if self._excludes:
            # If pairs of different classes are excluded, each class is a separate problem.
            return Partitioned(inner=Hungarian(cost=self.cost)).pair(batch, noise, generator)
        require_same_length(batch, noise)
        difference = self._difference(batch)
        cost = pairwise_cost(batch.data, noise, self.cost)
        if self.weight is None:
            weight = choose_weight(cost, difference, self.candidates)
        else:
            weight = self.weight * float(cost.std(correction=0))
        penalized = cost.add_(difference, alpha=weight)
        require_finite(penalized, "the cost of image")
        permutation, gap = assign(_PenalizedCosts(batch.data, noise, penalized))
        return Pairs(torch.arange(len(batch)), permutation, gap)

    def _difference(self, batch: Batch) -> Tensor:
        """Return the difference of conditions for all pairs of items, ``[N, N]`` in [0, 2]."""
        if self.by == "label":
            if batch.labels is None:
                raise _missing("labels", "label")
            return (batch.labels[:, None] != batch.labels[None, :]).float()
        if batch.embeddings is None:
            raise _missing("embeddings", "embedding")
        require_finite(batch.embeddings, "embedding")
        wide = batch.embeddings.to(torch.promote_types(batch.embeddings.dtype, torch.float32))
        # Scaled first, because the norm of large values would overflow; zero vectors stay zero.
        scaled = wide / wide.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(wide.dtype).tiny)
        unit = torch.nn.functional.normalize(scaled, dim=1)
        # Half the squared distance of unit vectors is 1 minus their cosine. Below 1e-6 it consists
        # of rounding errors of float32, and the conditions count as equal.
        difference = pairwise_cost(unit, unit, "squared") / 2
        return difference.masked_fill_(difference < 1e-6, 0)


class _PenalizedCosts(Costs):
    """Costs of a pool from a precomputed matrix ``[N, N]``."""

    def __init__(self, images: Tensor, noise: Tensor, matrix: Tensor) -> None:
        self._matrix = matrix
        super().__init__(images, noise)

    def _compute(self, rows: slice, out: Tensor | None) -> Tensor:
        return self._matrix[rows] if out is None else out.copy_(self._matrix[rows])


def choose_weight(cost: Tensor, difference: Tensor, candidates: float) -> float:
    """Return the weight for which a chosen share of all pairs are candidates.

    Image i and noise sample j are a candidate if ``cost[i, j] + weight * difference[i, j]`` is at
    most ``cost[i, i]``; an optimal assignment rarely contains other pairs. Each pair is a candidate
    up to a certain weight, and the result is a quantile of these maximum weights.

    Args:
        cost: ``[N, N]`` distance of image i and noise sample j.
        difference: ``[N, N]`` difference of the conditions of i and j, 0 if they are equal.
        candidates: share of candidates, in (0, 1].

    Returns:
        The weight; 0 if the share is not reached even without a penalty.
    """
    gain = cost.diagonal()[:, None] - cost
    differs = difference > 0  # pairs of equal conditions are not affected by the weight
    limits = (gain / difference)[differs]
    unaffected = int((gain[~differs] >= 0).sum())
    count = max(round(candidates * cost.numel()) - unaffected, 1)
    if count > len(limits):
        return 0.0
    return max(float(limits.kthvalue(len(limits) - count + 1).values), 0.0)


def _missing(attribute: str, by: str) -> DataError:
    return DataError(
        f'by = "{by}" requires {attribute}, but the data has none; '
        "choose data that has them, or use hungarian for data without conditions",
        Code.MISSING_ATTRIBUTE,
    )
