"""Entropic optimal transport on the device of the pool, for pools too large for exact assignment.

Sinkhorn's iteration computes the plan. Pairs are drawn from its rows, or the plan is rounded to a
permutation. Both work on blocks of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Coupler
from genkit.settings import setting
from genkit.tensors import Cost, require_same_length
from genkit.types import Batch, Pairs
from genkit_aot.assignment import assign_from
from genkit_aot.entropic import Costs, Potentials, potentials

ROUNDED_TOLERANCE = 0.1
"""Tolerance of a plan that is rounded. The permutation uses every noise sample exactly once in any
case, and a more accurate plan hardly improves it. Chosen, not tuned."""

ROUNDED_GAP = 1e-4
"""Gap at which rounding stops; for natural images one round of column generation suffices."""


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(Coupler):
    """Draws pairs from the entropic transport plan, or rounds the plan to a permutation.

    Drawn pairs are not bijective: in a pool some noise samples have several images and others none.
    The noise marginal is preserved nevertheless: the expected number of uses of a noise sample is
    the sum of its column in the plan, and these sums are equal within ``tolerance``. Rounded pairs
    use each noise sample once; their total cost is proven to be within 0.01 % of the minimum. The
    coupler ignores labels, so the noise of a class is not N(0, I): wrap it in ``partitioned`` for a
    class-conditional network. Time grows with about the square of the pool size.
    """

    source = "Cuturi 2013, arXiv 1306.0895; annealed as in Schmitzer 2019, arXiv 1610.06519"
    preserves_noise_marginal = True

    cost: Cost = setting(
        "euclidean",
        doc="cost of a pair: Euclidean distance of image and unit-variance noise, or its square",
    )
    epsilon: float = setting(
        0.03,
        doc="weight of the entropy, in standard deviations of the pool's costs without their "
        "row and column means; small values are slow and give nearly the exact assignment, large "
        "values give nearly random pairs",
        above=0,
    )
    tolerance: float = setting(
        0.01,
        doc="maximum relative error of the expected number of uses of a noise sample, as root mean "
        "square over the pool; no effect on a rounded plan",
        above=0,
        below=1,
    )
    iterations: int = setting(
        10_000,
        doc="maximum number of iterations at the last epsilon, beyond which an error is raised",
        at_least=1,
        at_most=10**7,
    )
    rounded: bool = setting(
        False, doc="whether to round the plan to a permutation, instead of drawing from it"
    )
    memory: float = setting(
        2.0,
        doc="maximum size of two matrices for the pool, in GiB; if they do not fit (pools above "
        "16,384 images by default), costs are recomputed in each iteration, in blocks",
        at_least=0,
    )

    @property
    def bijective(self) -> bool:
        return self.rounded

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        require_same_length(batch, noise)
        costs = Costs(batch.data, noise, self.cost, self.memory)
        dual = potentials(
            costs,
            costs.epsilon(self.epsilon),
            tolerance=ROUNDED_TOLERANCE if self.rounded else self.tolerance,
            iterations=self.iterations,
        )
        if not self.rounded and not dual.error <= self.tolerance:
            raise DataError(
                f"Sinkhorn's iteration must reach the tolerance {self.tolerance:g}, got an error "
                f"of {dual.error:.2g} after {self.iterations} iterations on a pool of "
                f"{len(batch)}; raise epsilon, iterations or tolerance",
                Code.NOT_CONVERGED,
            )
        index = torch.arange(len(batch))
        if not self.rounded:
            columns, entropy = _draw(costs, dual, generator)
            return Pairs(index, columns.cpu(), entropy=entropy)
        return Pairs(index, *assign_from(costs, dual, ROUNDED_GAP))


def _draw(costs: Costs, dual: Potentials, generator: torch.Generator) -> tuple[Tensor, float]:
    """Draw a column for each row of the plan, with the probabilities of the row.

    Draws are stratified: the unit interval is divided into N parts, and each row draws from a
    different part, in random order. Because columns are sorted by mean cost, this halves the
    variation of the total cost between draws.

    Returns:
        ``[N]`` index of the column of each row; and the renormalized entropy of the plan, see
        :class:`~genkit.types.Pairs`.
    """
    count, noises = costs.shape
    part = torch.randperm(count, generator=generator)[:, None]
    uniform = (part + torch.rand(count, 1, generator=generator, dtype=torch.float64)) / count
    uniform = uniform.to(dual.g.device)
    order = costs.column_means.argsort(stable=True)
    places, entropy = [], dual.g.new_zeros((), dtype=torch.float64)
    for rows in costs.rows:
        logits = (dual.g - costs.block(rows)).div_(dual.epsilon)[:, order]
        plan = torch.softmax(logits, dim=1)
        entropy += torch.special.entr(plan).sum(dtype=torch.float64)
        cumulative = plan.cumsum(1, dtype=torch.float64)
        # Scaled by the row's sum, which differs from 1 by rounding.
        levels = uniform[rows] * cumulative[:, -1:]
        places.append(torch.searchsorted(cumulative, levels, right=True))
    columns = order[torch.cat(places)[:, 0].clamp_(max=noises - 1)]
    # Rows have sum 1, so this is the entropy per row; it is log M for random pairs.
    return columns, min(1.0, float(entropy) / count / math.log(noises)) if noises > 1 else 0.0
