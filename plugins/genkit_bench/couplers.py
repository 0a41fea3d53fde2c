"""Measure couplers on the same pools in the same run; the reference is plain scipy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from genkit.tensors import Cost
from genkit_bench.candidates import Candidate, reason_of
from genkit_bench.measure import (
    Solved,
    cost_at_random,
    cost_of,
    solve,
    solve_plainly,
    time_cost_matrix,
)
from genkit_bench.pools import Pools
from genkit_bench.worker import Worker

PLAIN = "plain scipy"
"""Name of the reference, which is the full cost matrix and scipy's ``linear_sum_assignment``."""

_MAX_MATRIX = 2**28  # maximum entries (1 GiB in float32) of a cost matrix that is timed
_WARM_UP = 32  # number of pairs in the warm-up call, which imports modules


@dataclass(frozen=True)
class Limits:
    """Limits of the measurement.

    Attributes:
        repeats: number of pools of each size; each pool is measured once.
        seconds: maximum seconds for a pool; couplers that are expected to take longer are skipped.
        reference: maximum pool size for plain scipy.
    """

    repeats: int = 3
    seconds: float = 120.0
    reference: int = 4096


@dataclass(frozen=True)
class Row:
    """Measurements of a coupler at one pool size.

    Times are medians over all pools but the first, which is slower since memory is measured in it.

    Attributes:
        pool: number of images in a pool.
        coupler: name of the candidate or the reference.
        cost: name of the cost that the coupler minimizes, to which gap and gain refer.
        matrix_seconds: seconds of ``pairwise_cost`` alone.
        seconds: seconds of the whole call of ``pair``.
        each: seconds of each call.
        speed: time of plain scipy divided by the time of the coupler.
        gap: relative excess of the mean cost over the minimum; maximum over the pools.
        bound: maximum over the pools of the upper bound of the gap that the coupler returns; None
            if it returns none.
        gain: reduction of the mean cost divided by the maximum reduction; mean over the pools.
        peak_bytes: additional memory during the call; maximum over the pools.
        images_per_second: number of pairs per second.
        mean_cost: mean cost of the pairs; mean over the pools.
        random_cost: mean cost of random pairs; mean over the pools.
        note: reason why a value is missing; empty if none is.
    """

    pool: int
    coupler: str
    cost: Cost | None = None
    matrix_seconds: float | None = None
    seconds: float | None = None
    each: tuple[float, ...] = ()
    speed: float | None = None
    gap: float | None = None
    bound: float | None = None
    gain: float | None = None
    peak_bytes: int | None = None
    images_per_second: float | None = None
    mean_cost: float | None = None
    random_cost: float | None = None
    note: str = ""


@dataclass
class _Competitor:
    """The reference or a coupler, with its results so far.

    Attributes:
        name: name in the table of results.
        cost: name of the cost that is minimized.
        solve: function that takes the size and the index of a pool, and couples the pool.
        largest: maximum pool size; None for no limit.
        times: dict from pool size to median seconds.
        stopped: reason why measuring has stopped; empty if it has not.
        solved: result of each pool of the current size, in order.
    """

    name: str
    cost: Cost
    solve: Callable[[int, int], Solved]
    largest: int | None = None
    times: dict[int, float] = field(default_factory=dict)
    stopped: str = ""
    solved: list[Solved] = field(default_factory=list)

    def begin(self, size: int, limit: float) -> None:
        """Start a pool size; stop if it is too large or is expected to exceed the time limit."""
        self.solved = []
        expected = self._expected(size)
        if self.stopped:
            return
        if expected > limit:
            self.stopped = (
                f"not measured: expected to take {expected:.3g} s, but the limit is {limit:g} s"
            )
        elif self.largest is not None and size > self.largest:
            self.stopped = f"not measured on pools larger than {self.largest:,}, its limit"

    def _expected(self, size: int) -> float:
        """Extrapolate the seconds for a pool by a power law, or quadratically from one size."""
        if not self.times:
            return 0.0
        *earlier, (last, seconds) = self.times.items()
        exponent = 2.0
        if earlier and earlier[-1][1] > 0 and seconds > 0:
            before, fewer = earlier[-1]
            exponent = max(1.0, math.log(seconds / fewer) / math.log(last / before))
        return float(seconds * (size / last) ** exponent)

    def is_within(self, index: int, limit: float) -> bool:
        """Return whether pools 0 to ``index`` are expected to take at most ``limit`` seconds."""
        spent = [result.seconds for result in self.solved]
        if self.stopped or len(spent) < index:
            return False
        return not spent or sum(spent) + spent[-1] <= limit

    def seconds(self) -> float | None:
        """Return the median seconds for a pool, without the first pool if there are several."""
        times = [result.seconds for result in self.solved]
        return statistics.median(times[1:] or times) if times else None

    def row(self, size: int, plain: _Competitor, matrix: list[float], random: list[float]) -> Row:
        """Return the row of a pool size.

        Args:
            size: number of images in a pool.
            plain: reference for the same cost.
            matrix: seconds of the cost matrix of each pool.
            random: mean cost of random pairs in each pool.
        """
        seconds, solved = self.seconds(), self.solved
        if seconds is None:
            return Row(size, self.name, self.cost, note=self.stopped)
        self.times[size] = seconds
        costs = [
            (before, result.mean_cost, best.mean_cost)
            for before, result, best in zip(random, solved, plain.solved, strict=False)
        ]
        gains = [(before - cost) / (before - best) for before, cost, best in costs if before > best]
        bounds = [result.bound for result in solved if result.bound is not None]
        plain_seconds = plain.seconds()
        return Row(
            pool=size,
            coupler=self.name,
            cost=self.cost,
            matrix_seconds=statistics.median(matrix) if matrix else None,
            seconds=seconds,
            each=tuple(result.seconds for result in solved),
            speed=plain_seconds / seconds if plain_seconds else None,
            gap=max((cost / best - 1 for _, cost, best in costs), default=None),
            bound=max(bounds) if len(bounds) == len(solved) else None,
            gain=statistics.mean(gains) if gains else None,
            peak_bytes=max((r.peak for r in solved if r.peak is not None), default=None),
            images_per_second=solved[0].pairs / seconds,
            mean_cost=statistics.mean(result.mean_cost for result in solved),
            random_cost=statistics.mean(random[: len(solved)]),
            note=self.stopped,
        )


def measure_couplers(
    candidates: Sequence[Candidate],
    pools: Pools,
    sizes: Sequence[int],
    limits: Limits,
    report: Callable[[str], None],
) -> Iterator[Row]:
    """Yield a row for each pool size and coupler; for each size, the reference comes first.

    Each pool is coupled by all couplers before the next pool, so that other load on the machine
    affects all couplers equally.

    Args:
        candidates: couplers to measure; a coupler that cannot be created has one row with the
            reason.
        pools: pools to couple.
        sizes: pool sizes, ascending.
        limits: limits of the measurement.
        report: function that is called with a description of the next measurement.
    """
    couplers = []
    for candidate in candidates:
        if candidate.coupler is None:
            yield Row(sizes[0], candidate.name, note=candidate.reason)
        else:
            couple = partial(solve, pools, candidate.coupler, bound=candidate.bound)
            couplers.append(_Competitor(candidate.name, cost_of(candidate.coupler), couple))
    costs = sorted({competitor.cost for competitor in couplers})
    plain = {
        cost: _Competitor(
            PLAIN if len(costs) == 1 else f"{PLAIN}, {cost}",
            cost,
            partial(solve_plainly, pools, cost),
            limits.reference,
        )
        for cost in costs
    }
    worker = Worker()

    def attempt(competitor: _Competitor, size: int, index: int) -> None:
        report(f"pool {size:,}, {index + 1} of {limits.repeats}: {competitor.name}")
        try:
            competitor.solved.append(worker.call(partial(competitor.solve, size, index)))
        # Third-party code may raise any error, which must not stop the measurement of the others.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            competitor.stopped = f"failed on a pool of {size:,}: {reason_of(error)}"

    competitors = [*plain.values(), *couplers]
    for competitor in competitors:  # warm-up, so that measured calls do not import modules
        attempt(competitor, min(sizes[0], _WARM_UP), 0)
    for size in sizes:
        for competitor in competitors:
            competitor.begin(size, limits.seconds)
        matrix: dict[Cost, list[float]] = {cost: [] for cost in costs}
        random: dict[Cost, list[float]] = {cost: [] for cost in costs}
        for index in range(limits.repeats):
            for cost in costs:
                pool = (pools, cost, size, index)
                random[cost].append(cost_at_random(*pool))
                if size * size <= _MAX_MATRIX:
                    matrix[cost].append(worker.call(partial(time_cost_matrix, *pool)))
            for competitor in competitors:
                if competitor.is_within(index, limits.seconds):
                    attempt(competitor, size, index)
        for competitor in competitors:
            cost = competitor.cost
            yield competitor.row(size, plain[cost], matrix[cost], random[cost])
