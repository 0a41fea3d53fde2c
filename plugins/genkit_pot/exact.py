"""Exact optimal transport between pools of one size, which is an assignment."""

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
    """The permutation of the noise of least total distance to the images, by network simplex.

    The same pairs as ``hungarian``, up to ties, and faster on large pools. It looks at no label,
    so it skews the noise of a class: wrap it in ``partitioned`` where a network is told the class.
    """

    source = "Bonneel et al. 2011, doi 10.1145/2070781.2024192, as POT's ot.emd"
    bijective = True

    cost: Cost = setting(
        "euclidean",
        doc="what is summed over the pairs: distance between image and unit-variance noise, or "
        "its square",
    )
    iterations: int = setting(
        10_000_000, doc="steps of the network simplex after which it gives up", at_least=1
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
        # Every image and noise has mass 1 rather than 1/N: the flows of the network simplex are
        # then sums of whole numbers, and a vertex of the polytope is a matrix of exact 0 and 1.
        mass = np.ones(len(cost))
        plan, log = ot.emd(mass, mass, cost, numItermax=self.iterations, log=True)
        if log["warning"]:
            raise DataError(
                f"ot.emd found no optimal pairs for a pool of {len(cost)} in {self.iterations} "
                f"iterations ({log['warning']}); raise iterations, or use hungarian",
                Code.NOT_CONVERGED,
            )
        index = torch.arange(len(cost))
        permutation = torch.from_numpy(plan.argmax(axis=1)).long()
        if not torch.equal(permutation.sort().values, index):
            raise DataError(
                f"ot.emd returned a plan for a pool of {len(cost)} that is no permutation; "
                "use hungarian",
                Code.INVALID_RESULT,
            )
        return Pairs(index, permutation)
