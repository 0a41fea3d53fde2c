"""Optimal assignment of noise samples to an equal number of images, by POT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Coupler
from genkit.settings import setting
from genkit.tensors import Cost, pairwise_cost, require_same_length
from genkit.types import Batch, Pairs


@dataclass(frozen=True, kw_only=True)
class Exact(Coupler):
    """Minimizes the total cost of a pool with the network simplex algorithm.

    The pairs are the same as with ``hungarian``, up to ties; ``hungarian`` is faster on large
    pools. The coupler ignores labels, so the noise of a class is not N(0, I): wrap it in
    ``partitioned`` for a class-conditional network.
    """

    source = "Bonneel et al. 2011, doi 10.1145/2070781.2024192, implemented by POT as ot.emd"
    bijective = True

    cost: Cost = setting(
        "euclidean",
        doc="cost of a pair: Euclidean distance of image and unit-variance noise, or its square",
    )
    iterations: int = setting(
        10_000_000,
        doc="maximum number of network simplex iterations, beyond which an error is raised",
        at_least=1,
        at_most=10**9,
    )

    def pair(
        self,
        batch: Batch,
        noise: Tensor,
        generator: torch.Generator,
    ) -> Pairs:
        import ot

        require_same_length(batch, noise)
        cost = pairwise_cost(batch.data, noise, self.cost).cpu().double().numpy()
        # Mass 1 rather than 1/N: the flows of the network simplex are then sums of integers, so
        # the entries of the plan are exactly 0 or 1.
        mass = np.ones(len(cost))
        plan, log = ot.emd(mass, mass, cost, numItermax=self.iterations, log=True)
        if log["warning"]:
            raise DataError(
                f"ot.emd must reach the optimum of a pool of {len(cost)} within "
                f"{self.iterations} iterations ({log['warning']}); raise iterations, or use "
                "hungarian",
                Code.NOT_CONVERGED,
            )
        index = torch.arange(len(cost))
        permutation = torch.from_numpy(plan.argmax(axis=1)).long()
        if not torch.equal(permutation.sort().values, index):
            raise DataError(
                f"ot.emd must return a permutation, got another plan for a pool of {len(cost)}; "
                "use hungarian",
                Code.INVALID_RESULT,
            )
        return Pairs(index, permutation)
