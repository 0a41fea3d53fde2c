"""Entropic optimal transport, from whose plan the pairs are drawn."""

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
    """Draws a noise for each image from its row of the entropic transport plan.

    Not bijective: rows are drawn independently, so in one pool some noises serve several images
    and others none. The noise marginal is kept all the same: a noise serves as many images as its
    column of the plan sums to, in expectation, and Sinkhorn's iteration makes every column sum to
    the same within ``tolerance``; over many pools the paired noise is therefore N(0, I). It looks
    at no label, so it skews the noise of a class: wrap it in ``partitioned`` where a network is
    told the class.
    """

    source = "Cuturi 2013, arXiv 1306.0895, as POT's ot.sinkhorn in the log domain"
    preserves_noise_marginal = True

    cost: Cost = setting(
        "euclidean",
        doc="what is summed over the pairs: distance between image and unit-variance noise, or "
        "its square",
    )
    epsilon: float = setting(
        0.1,
        doc="weight of the entropy, in standard deviations of the pool's costs: small is close to "
        "the exact assignment and slow, large is close to random pairs",
        above=0,
    )
    tolerance: float = setting(
        0.01,
        doc="how far the expected number of uses of a noise may be from that of the others, as "
        "a fraction, root mean square over the pool",
        above=0,
        below=1,
    )
    iterations: int = setting(10_000, doc="iterations after which it gives up", at_least=1)

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        import ot
        from scipy.special import entr

        cost = pairwise_cost(batch.data, noise, self.cost).cpu().double().numpy()
        images, noises = cost.shape
        plan = ot.sinkhorn(
            np.full(images, 1 / images),
            np.full(noises, 1 / noises),
            cost,
            # Where all costs are alike, every epsilon gives the same uniform plan.
            reg=self.epsilon * (cost.std() or 1.0),
            method="sinkhorn_log",
            numItermax=self.iterations,
            # POT stops at the Euclidean norm of the columns' error; each should be 1 / noises.
            stopThr=self.tolerance / math.sqrt(noises),
            warn=False,
        )
        uses = noises * plan.sum(axis=0)
        error = float(np.sqrt(np.mean(np.square(uses - 1))))
        if not error <= self.tolerance:
            raise DataError(
                f"Sinkhorn's iteration reached an error of {error:.2g} in {self.iterations} "
                f"iterations on a pool of {images}, and tolerance is {self.tolerance:g}; "
                "raise epsilon, iterations or tolerance",
                Code.NOT_CONVERGED,
            )
        drawn = torch.multinomial(torch.from_numpy(plan), 1, generator=generator)
        # Of its rows, each of which sums to 1 / images; an entropy of log N is that of the row.
        entropy = float(entr(images * plan).sum()) / images
        share = min(1.0, max(0.0, entropy / math.log(noises))) if noises > 1 else 0.0
        return Pairs(torch.arange(images), drawn[:, 0], entropy=share)
