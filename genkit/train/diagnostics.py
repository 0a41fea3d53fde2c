"""What a coupler did to a pool, told in numbers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genkit.types import Pairs


@dataclass(frozen=True)
class PoolReport:
    """What was found of one pool.

    Attributes:
        pool: its number.
        images: position in the stream, in images, at which it begins.
        pairs: that it holds.
        cost_before: mean Euclidean distance between an image and the noise drawn for it.
        cost_after: mean Euclidean distance between an image and the noise assigned to it.
        seconds_solving: that the coupler took.
        gap: see :class:`~genkit.types.Pairs`.
        parts: least, median and greatest number of pairs in a part, where the pool was parted.
        noises: effective number of noise samples, ``(sum c)^2 / sum c^2`` where each is assigned c
            times; ``pairs`` where each is assigned once.
        noise_mean: over all values of the assigned noise; 0 for N(0, I).
        noise_variance: over all values of the assigned noise; 1 for N(0, I).
        noise_worst: greatest of the dimensions' means, in standard errors: for N(0, I) about
            sqrt(2 log d), which is 4 for 3,072 dimensions.
        entropy: see :class:`~genkit.types.Pairs`.
        seconds_waited: that the training stood still for it.
    """

    pool: int
    images: int
    pairs: int
    cost_before: float
    cost_after: float
    seconds_solving: float
    gap: float | None
    parts: tuple[int, float, int] | None
    noises: float
    noise_mean: float
    noise_variance: float
    noise_worst: float
    entropy: float | None = None
    seconds_waited: float = 0.0

    def row(self) -> dict[str, Any]:
        """Return the row of ``metrics.jsonl``, with the relative ``reduction`` of the cost."""
        reduction = 1 - self.cost_after / self.cost_before if self.cost_before else 0.0
        found = {**vars(self), "reduction": reduction}
        return {k: _short(v) if isinstance(v, float) else v for k, v in found.items()}


def report(
    pool: int,
    images: int,
    data: Tensor,
    unpaired: Tensor,
    assigned: Tensor,
    pairs: Pairs,
    seconds: float,
) -> PoolReport:
    """Measure a pool.

    Args:
        pool: its number.
        images: position at which it begins.
        data: ``[N, *shape]`` images.
        unpaired: ``[N, *shape]`` the noise that each would have had without a coupler.
        assigned: ``[N, *shape]`` the noise that each has.
        pairs: as the coupler returned them.
        seconds: that it took.
    """
    x, before, after = (t[:, None].flatten(1).float() for t in (data, unpaired, assigned))
    means = after.mean(dim=0)
    sizes = sorted(pairs.parts)
    uses = pairs.noise.bincount().double()
    return PoolReport(
        pool=pool,
        images=images,
        pairs=len(x),
        cost_before=float((x - before).norm(dim=1).mean()),
        cost_after=float((x - after).norm(dim=1).mean()),
        seconds_solving=seconds,
        gap=pairs.gap,
        parts=(sizes[0], statistics.median(sizes), sizes[-1]) if sizes else None,
        noises=float(uses.sum().square() / uses.square().sum()),
        noise_mean=float(means.mean()),
        noise_variance=float(after.square().mean() - means.mean().square()),
        noise_worst=float(means.abs().max()) * math.sqrt(len(x)),
        entropy=pairs.entropy,
    )


def is_skewed(rows: Sequence[Mapping[str, Any]], shape: Sequence[int]) -> bool:
    """Whether rows of 8 pools or more show that the noise assigned in them is not N(0, I)."""
    if len(rows) < 8:
        return False
    mean, variance, worst, noises, pairs = (
        torch.tensor([row[name] for row in rows], dtype=torch.float64)
        for name in ("noise_mean", "noise_variance", "noise_worst", "noises", "pairs")
    )
    # In units of the error of so many independent draws: the mean, the mean square (a term has the
    # variance 2), and the greatest mean of a dimension above the bound of its expectation.
    count = math.prod(shape)
    square = (variance + mean.square() - 1) / math.sqrt(2)
    above = worst * (noises / pairs).sqrt() - math.sqrt(2 * math.log(2 * count))
    z = torch.stack([*(torch.stack([mean, square]) * (noises * count).sqrt()), above])
    # Noise may be N(0, I) over many pools and in none of them, so that their own scatter counts if
    # it is larger. 10 errors have a probability of 2e-5 in 8 pools of any scatter (Student's t),
    # and of 1e-22 where the draws are independent. The rest is for iterative couplers, which
    # assign one noise as often as another up to a tolerance of 1 %.
    error = z.std(dim=1).clamp(min=1) / math.sqrt(len(rows))
    found = z.mean(dim=1)
    found[:2] = found[:2].abs()
    return bool((found > 10 * error + 0.02 * noises.max().sqrt()).any())


def _short(value: float) -> float:
    """Return a number in six digits: there is a row for every pool."""
    return float(f"{value:.6g}")
