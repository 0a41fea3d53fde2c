"""The assignment with minimal total cost (EDM-AOT, arXiv 2403.05069, section 3)."""

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
    """Finds the exact permutation of noise samples that minimizes the total cost of a pool.

    It ignores labels, so the noise of a class is not N(0, I): wrap it in ``partitioned`` for a
    class-conditional network. Time grows with about the square of the pool size.
    """

    source = "EDM-AOT, arXiv 2403.05069, section 3"
    bijective = True

    cost: Cost = setting(
        "euclidean",
        doc="cost of a pair: Euclidean distance of image and unit-variance noise, or its square",
    )
    tolerance: float = setting(
        0.0,
        doc="maximum relative excess of the total cost over the minimum: 0 for the exact "
        "assignment; larger values save a little time on large pools",
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
