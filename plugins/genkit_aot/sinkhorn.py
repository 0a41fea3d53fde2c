"""Entropic optimal transport on the device of the pool, for pools too large to be paired exactly.

Sinkhorn's iteration finds the plan; pairs are drawn from its rows, or rounded to a permutation.
Neither needs the plan as a whole.
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
from genkit_aot.assignment import assign_along
from genkit_aot.entropic import Costs, Potentials, potentials

ROUGH = 0.1
"""The error that a plan to be rounded may have: a permutation uses every noise once, whatever the
plan, and is hardly better for an exact one."""

NEAR = 1e-4
"""The gap at which a rounded plan is good enough; the first round of photos is nearer than that."""


@dataclass(frozen=True, kw_only=True)
class Sinkhorn(Coupler):
    """Pairs from the entropic transport plan: drawn, or rounded to a permutation.

    Drawn, it is not bijective: in one pool some noises serve several images and others none. The
    noise marginal is kept all the same: a noise serves as many images as its column of the plan
    sums to, in expectation, and every column sums to the same within ``tolerance``. Rounded, every
    noise is used once: the pairs that the plan favours are solved exactly, until the total cost is
    proven to be within 0.01 % of the least. It looks at no label, so it skews the noise of a class:
    wrap it in ``partitioned`` where a network is told the class. Time grows with about the square
    of the pool.
    """

    source = "Cuturi 2013, arXiv 1306.0895; annealed as in Schmitzer 2019, arXiv 1610.06519"
    preserves_noise_marginal = True

    cost: Cost = setting(
        "euclidean",
        doc="what is summed over the pairs: distance between image and unit-variance noise, or "
        "its square",
    )
    epsilon: float = setting(
        0.03,
        doc="weight of the entropy, in standard deviations of the pool's costs less the mean cost "
        "of each image and of each noise: small is close to the exact assignment and slow, large "
        "is close to random pairs",
        above=0,
    )
    tolerance: float = setting(
        0.01,
        doc="how far the expected number of uses of a noise may be from that of the others, as "
        "a fraction, root mean square over the pool; a rounded plan uses each noise once anyway",
        above=0,
        below=1,
    )
    iterations: int = setting(
        10_000, doc="iterations at the last epsilon after which it gives up", at_least=1
    )
    rounded: bool = setting(
        False, doc="make a permutation of little total cost from the plan, instead of drawing"
    )
    memory: float = setting(
        2.0,
        doc="GiB for two matrices of the pool's size; where they do not fit (above 16,384 images), "
        "costs are computed anew in each iteration, a block of them at a time",
        at_least=0,
    )

    @property
    def bijective(self) -> bool:
        return self.rounded

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        require_same_length(batch, noise)
        costs = Costs(batch.data, noise, self.cost, self.memory)
        found = potentials(
            costs,
            costs.epsilon(self.epsilon),
            tolerance=ROUGH if self.rounded else self.tolerance,
            iterations=self.iterations,
        )
        if not self.rounded and not found.error <= self.tolerance:
            raise DataError(
                f"Sinkhorn's iteration reached an error of {found.error:.2g} in {self.iterations} "
                f"iterations on a pool of {len(batch)}, and tolerance is {self.tolerance:g}; "
                "raise epsilon, iterations or tolerance",
                Code.NOT_CONVERGED,
            )
        index = torch.arange(len(batch))
        if not self.rounded:
            drawn, entropy = _drawn(costs, found, generator)
            return Pairs(index, drawn.cpu(), entropy=entropy)
        return Pairs(index, *assign_along(costs, found, NEAR))


def _drawn(costs: Costs, found: Potentials, generator: torch.Generator) -> tuple[Tensor, float]:
    """Return a column for each row of the plan, drawn with the row's probabilities (``[N]``).

    With it comes the renormalized entropy of the plan, see :class:`~genkit.types.Pairs`.

    The rows share out the unit interval: each draws from a part of its own, the parts dealt at
    random. With the noises in the order of what they cost on average, that halves how much the
    total cost varies from draw to draw.
    """
    count, noises = costs.shape
    part = torch.randperm(count, generator=generator)[:, None]
    uniform = (part + torch.rand(count, 1, generator=generator, dtype=torch.float64)) / count
    uniform = uniform.to(found.g.device)
    order = costs.column_means.argsort(stable=True)
    chosen, entropy = [], found.g.new_zeros((), dtype=torch.float64)
    for rows in costs.rows:
        logits = (found.g - costs.block(rows)).div_(found.epsilon)[:, order]
        plan = torch.softmax(logits, dim=1)
        entropy += torch.special.entr(plan).sum(dtype=torch.float64)
        below = plan.cumsum(1, dtype=torch.float64)
        # The first column up to which more than this share of the row lies.
        chosen.append(torch.searchsorted(below, uniform[rows] * below[:, -1:], right=True))
    drawn = order[torch.cat(chosen)[:, 0].clamp_(max=noises - 1)]
    # Every row sums to 1: an entropy of log N is that of the choice of the row.
    return drawn, min(1.0, float(entropy) / count / math.log(noises)) if noises > 1 else 0.0
