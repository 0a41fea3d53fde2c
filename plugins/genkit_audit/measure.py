"""Measure the pairs of images and noise that a stage trains on."""

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
    """Measurements of pairs that are not in their :class:`~genkit.types.CouplingStatistics`.

    Attributes:
        cost_before: mean distance between images and noise before coupling (random pairs).
        cost_after: mean distance between images and their assigned noise.
        gap: maximum gap of the pools, see :class:`~genkit.types.Pairs`; None if the gap of a pool
            is unknown.
        entropy: mean renormalized entropy of the transport plans; None if a pool has no plan.
        noises: effective number of assigned noise samples, at most the number of pairs.
        noise: tests of the assigned noise for N(0, I).
        skew: class whose mean noise deviates most from 0; None if the data has no labels, or its
            items do not vary.
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
        """Relative reduction of the mean distance by the coupler."""
        return 1 - self.cost_after / self.cost_before if self.cost_before else 0.0


@dataclass(frozen=True)
class Audit:
    """The audit of a coupling.

    Attributes:
        subject: name of the stage or file.
        coupling: declarations of the coupler.
        statistics: statistics of the pairs; None for a file that contains none.
        pairing: other measurements of the pairs; None for a file, which contains only statistics.
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
        ahead: number of pools that are coupled in parallel.

    Raises:
        DataError: there are too few pairs, or the coupler raises an error.
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
    """Return the mean of a value over the pools, weighted by the number of pairs of each pool."""
    weighted = sum(pool.pairs * value for pool, value in zip(pools, values, strict=True))
    return weighted / sum(pool.pairs for pool in pools)
