"""Measurements of the pairs of a pool."""

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
    """Measurements of one pool, a row of ``metrics.jsonl``.

    Attributes:
        pool: index of the pool.
        images: position of the pool's first pair in the stream, in images.
        pairs: number of pairs.
        cost_before: mean Euclidean distance between an image and the noise drawn for it.
        cost_after: mean Euclidean distance between an image and the noise assigned to it.
        seconds_solving: time of the coupler in seconds.
        gap: see :class:`~genkit.types.Pairs`.
        parts: min, median and max number of pairs in a group; None for a pool without groups.
        noises: effective number of noise samples, ``(sum c)^2 / sum c^2``, where c is the number of
            images to which a sample is assigned; equal to ``pairs`` if each is assigned once.
        noise_mean: mean of all values of the assigned noise; 0 for N(0, I).
        noise_variance: variance of all values of the assigned noise; 1 for N(0, I).
        noise_worst: max over dimensions of the absolute mean of the assigned noise, in standard
            errors; about sqrt(2 log d) for N(0, I), which is 4 for d = 3,072 dimensions.
        entropy: see :class:`~genkit.types.Pairs`.
        seconds_waited: time in seconds for which training waited for this pool.
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
        values = {**vars(self), "reduction": reduction}
        return {k: _short(v) if isinstance(v, float) else v for k, v in values.items()}


def report(
    pool: int,
    images: int,
    data: Tensor,
    unpaired: Tensor,
    assigned: Tensor,
    pairs: Pairs,
    seconds: float,
) -> PoolReport:
    """Return measurements of a pool.

    Args:
        pool: index of the pool.
        images: position of the pool's first pair, in images.
        data: ``[N, *shape]`` images.
        unpaired: ``[N, *shape]`` noise that each image would have without a coupler.
        assigned: ``[N, *shape]`` noise assigned to each image.
        pairs: result of the coupler.
        seconds: time of the coupler in seconds.
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


MIN_POOLS = 8
"""Number of pools below which the noise is not tested: with fewer, the scatter between pools would
be estimated with fewer than 7 degrees of freedom."""


def is_skewed(rows: Sequence[Mapping[str, Any]], shape: Sequence[int]) -> bool:
    """Return whether the assigned noise of 8 pools or more deviates significantly from N(0, I).

    Args:
        rows: results of :meth:`PoolReport.row`; the result is False for fewer than 8 rows.
        shape: shape of an image.
    """
    if len(rows) < MIN_POOLS:
        return False
    mean, variance, worst, noises, pairs = (
        torch.tensor([row[name] for row in rows], dtype=torch.float64)
        for name in ("noise_mean", "noise_variance", "noise_worst", "noises", "pairs")
    )
    # Three statistics in units of the standard error of independent draws: the mean, the mean
    # square (the square of a normal value has variance 2), and the excess of the largest mean of a
    # dimension over sqrt(2 log 2d), an upper bound of its expectation.
    count = math.prod(shape)
    square = (variance + mean.square() - 1) / math.sqrt(2)
    above = worst * (noises / pairs).sqrt() - math.sqrt(2 * math.log(2 * count))
    z = torch.stack([*(torch.stack([mean, square]) * (noises * count).sqrt()), above])
    # Noise can be N(0, I) over many pools without being so in each, so the scatter between pools
    # replaces the standard error where it is larger. A deviation of 10 standard errors has
    # probability 2e-5 for 8 pools with any scatter (Student's t, 7 degrees of freedom), and 1e-22
    # for independent draws. The second term is for iterative couplers, which use all noise samples
    # equally often only up to a tolerance of 1 %; its factor is chosen, not tuned.
    error = z.std(dim=1).clamp(min=1) / math.sqrt(len(rows))
    deviation = z.mean(dim=1)
    deviation[:2] = deviation[:2].abs()
    return bool((deviation > 10 * error + 0.02 * noises.max().sqrt()).any())


def _short(value: float) -> float:
    """Return a number rounded to six digits, which keeps the file of rows small."""
    return float(f"{value:.6g}")
