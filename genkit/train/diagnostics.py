"""What a coupler did to a pool, told in numbers."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

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
        noise_mean: over all values of the assigned noise; 0 for N(0, I).
        noise_variance: over all values of the assigned noise; 1 for N(0, I).
        noise_worst: greatest of the dimensions' means, in standard errors: for N(0, I) about
            sqrt(2 log d), which is 4 for 3,072 dimensions.
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
    noise_mean: float
    noise_variance: float
    noise_worst: float
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
    return PoolReport(
        pool=pool,
        images=images,
        pairs=len(x),
        cost_before=float((x - before).norm(dim=1).mean()),
        cost_after=float((x - after).norm(dim=1).mean()),
        seconds_solving=seconds,
        gap=pairs.gap,
        parts=(sizes[0], statistics.median(sizes), sizes[-1]) if sizes else None,
        noise_mean=float(means.mean()),
        noise_variance=float(after.square().mean() - means.mean().square()),
        noise_worst=float(means.abs().max()) * math.sqrt(len(x)),
    )


def _short(value: float) -> float:
    """Return a number in six digits: there is a row for every pool."""
    return float(f"{value:.6g}")
