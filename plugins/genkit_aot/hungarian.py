"""The assignment of least total cost (EDM-AOT, arXiv 2403.05069, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genkit.interfaces import Coupler
from genkit.settings import setting
from genkit.tensors import Cost, pairwise_cost, require_same_length
from genkit.types import Batch, Pairs


@dataclass(frozen=True, kw_only=True)
class Hungarian(Coupler):
    """The permutation of the noise of least total distance to the images, found exactly.

    It looks at no label, so it skews the noise of a class: wrap it in ``partitioned`` where a
    network is told the class. Time grows with about the cube of the pool.
    """

    source = "EDM-AOT, arXiv 2403.05069, section 3"

    cost: Cost = setting(
        "euclidean",
        doc="what is summed over the pairs: distance between image and unit-variance noise, or "
        "its square",
    )

    def pair(
        self,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Pairs:
        require_same_length(batch, noise)
        cost = pairwise_cost(batch.data, noise, self.cost)
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
        return Pairs(torch.from_numpy(rows).long(), torch.from_numpy(columns).long())
