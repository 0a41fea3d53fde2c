"""Entropic optimal transport by POT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Coupler
from genkit.settings import setting
from genkit.tensors import Cost, pairwise_cost
from genkit.types import Batch, Pairs


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(Coupler):
    """Draws a noise sample for each image from its row of the entropic transport plan.

    Rows are drawn independently, so the pairs are not bijective: in a pool some noise samples have
    several images and others none. The noise marginal is preserved nevertheless: the expected
    number of uses of a noise sample is the sum of its column in the plan, and these sums are equal
    within ``tolerance``. The coupler ignores labels, so the noise of a class is not N(0, I): wrap
    it in ``partitioned`` for a class-conditional network.
    """

    source = "Cuturi 2013, arXiv 1306.0895, implemented by POT as ot.sinkhorn in the log domain"
    preserves_noise_marginal = True

    cost: Cost = setting(
        "euclidean",
        doc="cost of a pair: Euclidean distance of image and unit-variance noise, or its square",
    )
    epsilon: float = setting(
        0.1,
        doc="weight of the entropy, in standard deviations of the pool's costs; small values are "
        "slow and give nearly the exact assignment, large values give nearly random pairs",
        above=0,
    )
    tolerance: float = setting(
        0.01,
        doc="maximum relative error of the expected number of uses of a noise sample, as root mean "
        "square over the pool",
        above=0,
        below=1,
    )
    iterations: int = setting(
        10_000,
        doc="maximum number of iterations, beyond which an error is raised",
        at_least=1,
        at_most=10**7,
    )

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        import ot
        from scipy.special import entr

        cost = pairwise_cost(batch.data, noise, self.cost).cpu().double().numpy()
        images, noises = cost.shape
        plan = ot.sinkhorn(
            np.full(images, 1 / images),
            np.full(noises, 1 / noises),
            cost,
            # If all costs are equal, every epsilon gives the same uniform plan.
            reg=self.epsilon * (cost.std() or 1.0),
            method="sinkhorn_log",
            numItermax=self.iterations,
            # POT compares the Euclidean norm of the column errors; columns should sum to 1 /
            # noises.
            stopThr=self.tolerance / math.sqrt(noises),
            warn=False,
        )
        uses = noises * plan.sum(axis=0)
        error = float(np.sqrt(np.mean(np.square(uses - 1))))
        if not error <= self.tolerance:
            raise DataError(
                f"Sinkhorn's iteration must reach the tolerance {self.tolerance:g}, got an error "
                f"of {error:.2g} after {self.iterations} iterations on a pool of {images}; "
                "raise epsilon, iterations or tolerance",
                Code.NOT_CONVERGED,
            )
        columns = torch.multinomial(torch.from_numpy(plan), 1, generator=generator)
        # Entropy per row, with rows scaled to sum 1; it is log M for random pairs.
        entropy = float(entr(images * plan).sum()) / images
        share = min(1.0, max(0.0, entropy / math.log(noises))) if noises > 1 else 0.0
        return Pairs(torch.arange(images), columns[:, 0], entropy=share)
