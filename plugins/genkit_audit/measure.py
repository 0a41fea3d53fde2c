"""Measure the pairs of a training."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from genkit.artifacts import Coupling, CouplingStatistics
from genkit.parts.principal import Directions
from genkit.train.coupling import DIRECTIONS, coupling_statistics, declarations_of
from genkit.train.diagnostics import PoolReport
from genkit.train.pairing import PairStream
from genkit_audit.noise import ClassSkew, Gaussianity, class_skew, gaussianity


@dataclass(frozen=True)
class Pairing:
    """Measurements of pairs, besides their statistics.

    Attributes:
        cost_before: mean distance between an image and the noise drawn for it.
        cost_after: mean distance between an image and the noise assigned to it.
        gap: maximum gap of the pools, see :class:`~genkit.types.Pairs`; None if one is unknown.
        entropy: mean renormalized entropy of the plans; None if a pool has none.
        noises: effective number of assigned noise samples, at most the number of pairs.
        noise: tests of the assigned noise.
        skew: class with the most skewed noise; None for data without labels or variance.
    """

    cost_before: float
    cost_after: float
    gap: float | None
    entropy: float | None
    noises: float
    noise: Gaussianity
    skew: ClassSkew | None

    @property
    def reduction(self) -> float:
        """Relative reduction of the cost by the pairs."""
        return 1 - self.cost_after / self.cost_before if self.cost_before else 0.0


@dataclass(frozen=True)
class Audit:
    """The audit of a coupling.

    Attributes:
        subject: name of the stage or file.
        coupling: declarations of its coupler.
        statistics: statistics of its pairs; None for a file without them.
        pairing: other measurements; None for a file, which contains only the statistics.
    """

    subject: str
    coupling: Coupling
    statistics: CouplingStatistics | None
    pairing: Pairing | None = None


def audit_of(subject: str, stream: PairStream, count: int, ahead: int) -> Audit:
    """Measure the first pairs of a stream.

    Args:
        subject: name of the stage or file.
        stream: stream of pairs.
        count: number of pairs.
        ahead: number of pools that are coupled at the same time.

    Raises:
        DataError: there are too few pairs, or the coupler fails.
    """
    with closing(stream.batches(count, 0, ahead)) as batches:
        batch, noise, pools = next(batches)
    images, flat = (values[:, None].flatten(1) for values in (batch.data, noise))
    directions = Directions.of(images, DIRECTIONS)
    statistics = coupling_statistics(batch.data, noise, len(pools), directions)
    pairs = sum(pool.pairs for pool in pools)
    share = sum(pool.noises for pool in pools) / pairs
    gaps = [pool.gap for pool in pools if pool.gap is not None]
    entropies = [pool.entropy for pool in pools if pool.entropy is not None]
    return Audit(
        subject,
        declarations_of(stream.coupler),
        statistics,
        Pairing(
            _mean(pools, [pool.cost_before for pool in pools]),
            _mean(pools, [pool.cost_after for pool in pools]),
            max(gaps) if len(gaps) == len(pools) else None,
            _mean(pools, entropies) if len(entropies) == len(pools) else None,
            share * len(flat),
            gaussianity(flat, directions, share * len(flat)),
            None if batch.labels is None else class_skew(flat, batch.labels, directions, share),
        ),
    )


def _mean(pools: Sequence[PoolReport], values: Sequence[float]) -> float:
    """Return the mean of values of pools, weighted by their numbers of pairs."""
    weighted = sum(pool.pairs * value for pool, value in zip(pools, values, strict=True))
    return weighted / sum(pool.pairs for pool in pools)
