"""The assignment of least total cost (EDM-AOT, arXiv 2403.05069, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.interfaces import Coupler
from genkit.settings import setting
from genkit.tensors import Cost, require_same_length
from genkit.types import Batch, Pairs
from genkit_aot.assignment import assign
from genkit_aot.entropic import Costs


@dataclass(frozen=True, kw_only=True)
class Hungarian(Coupler):
    """The permutation of the noise of least total distance to the images, found exactly.

    It looks at no label, so it skews the noise of a class: wrap it in ``partitioned`` where a
    network is told the class. Time grows with about the square of the pool.
    """

    source = "EDM-AOT, arXiv 2403.05069, section 3"
    bijective = True

    cost: Cost = setting(
        "euclidean",
        doc="what is summed over the pairs: distance between image and unit-variance noise, or "
        "its square",
    )
    tolerance: float = setting(
        0.0,
        doc="how far the total cost may be above the least possible, as a share of it: 0 for the "
        "exact assignment; more saves a little time on large pools",
        at_least=0,
    )

    def pair(
        self,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Pairs:
        require_same_length(batch, noise)
        permutation, gap = assign(Costs(batch.data, noise, self.cost), self.tolerance)
        return Pairs(torch.arange(len(batch)), permutation, gap)
