"""Couplers side by side: the same pools, in the same run, beside plain scipy."""

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
"""Name of the rows of the reference: the full cost matrix and ``linear_sum_assignment``."""

_LARGEST_MATRIX = 2**28  # entries, 1 GiB in float32; a larger one is not made just to time it
_WARM_UP = 32  # pairs of the call before the first measured one, which imports what is needed


@dataclass(frozen=True)
class Limits:
    """How long to go on.

    Attributes:
        repeats: pools of each size, each measured once.
        seconds: a coupler that is expected to take longer for one pool is not tried.
        reference: largest pool that plain scipy solves.
    """

    repeats: int = 3
    seconds: float = 120.0
    reference: int = 4096


@dataclass(frozen=True)
class Row:
    """What was measured of one coupler at one size.

    Times are medians over the pools, without the first: there memory is measured, which takes time.

    Attributes:
        pool: images in a pool.
        coupler: name of the candidate, or of the reference.
        cost: that it minimises; gap and gain are measured in it.
        matrix_seconds: of ``pairwise_cost`` alone.
        seconds: of the whole call of ``pair``.
        each: the seconds of each call.
        speed: how many times faster than plain scipy.
        gap: mean cost of its pairs over that of the optimal pairs, less 1; the worst of the pools.
        bound: greatest gap that the coupler's own proof leaves open; None where it has none.
        gain: share of the exact pairs' gain over random pairs that it reaches; mean of the pools.
        peak_bytes: memory above what was held before; the largest of the pools.
        images_per_second: pairs that it can feed.
        mean_cost: of its pairs; mean of the pools.
        random_cost: the same before coupling.
        note: why something is missing.
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
class _Course:
    """One competitor, the reference or a coupler, and how it did so far.

    Attributes:
        name: in the table.
        cost: that it minimises.
        solve: pairs pool ``index`` of a size.
        times: median seconds by size.
        stopped: why it is not tried any more.
    """

    name: str
    cost: Cost
    solve: Callable[[int, int], Solved]
    times: dict[int, float] = field(default_factory=dict)
    stopped: str = ""

    def expected(self, size: int) -> float:
        """Return the seconds that a pool will take: growing as before, or as the pairs do."""
        if not self.times:
            return 0.0
        *earlier, (last, seconds) = self.times.items()
        exponent = 2.0
        if earlier and earlier[-1][1] > 0 and seconds > 0:
            before, fewer = earlier[-1]
            exponent = max(1.0, math.log(seconds / fewer) / math.log(last / before))
        return float(seconds * (size / last) ** exponent)


def measure_couplers(
    candidates: Sequence[Candidate],
    pools: Pools,
    sizes: Sequence[int],
    limits: Limits,
    tell: Callable[[str], None],
) -> Iterator[Row]:
    """Yield a row for each size and coupler, the reference first.

    Each pool is solved by all of them, one after the other, before the next pool is drawn: what
    else the machine does falls on all alike.

    Args:
        candidates: what to measure; those without a coupler have one row, with the reason.
        pools: what to pair.
        sizes: of the pools, ascending.
        limits: how long to go on.
        tell: is told what is going on, a line at a time.
    """
    for candidate in candidates:
        if candidate.coupler is None:
            yield Row(sizes[0], candidate.name, note=candidate.reason)
    bench = _Bench(candidates, pools, limits, tell)
    bench.warm_up(sizes[0])
    for size in sizes:
        yield from bench.rows(size)


class _Bench:
    """Plain scipy for each cost that is minimised, and the couplers."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        pools: Pools,
        limits: Limits,
        tell: Callable[[str], None],
    ) -> None:
        self._pools = pools
        self._limits = limits
        self._tell = tell
        self._worker = Worker()
        usable = [(c.name, c.coupler, c.bound) for c in candidates if c.coupler and c.bound]
        couplers = [
            _Course(name, cost_of(coupler), partial(solve, pools, coupler, bound=bound))
            for name, coupler, bound in usable
        ]
        costs = sorted({course.cost for course in couplers})
        self._plain = {
            cost: _Course(
                PLAIN if len(costs) == 1 else f"{PLAIN}, {cost}",
                cost,
                partial(solve_plainly, pools, cost),
            )
            for cost in costs
        }
        self._everyone = [*self._plain.values(), *couplers]

    def warm_up(self, size: int) -> None:
        """Pair a few with each, so that no measured call imports anything."""
        for course in self._everyone:
            self._solve(course, min(size, _WARM_UP), 0)

    def rows(self, size: int) -> list[Row]:
        """Return the rows of one size."""
        everyone = self._everyone
        for course in everyone:
            self._stop_if_slow(course, size)
        solved: dict[str, list[Solved]] = {course.name: [] for course in everyone}
        matrix: dict[Cost, list[float]] = {cost: [] for cost in self._plain}
        random: dict[Cost, list[float]] = {cost: [] for cost in self._plain}
        for index in range(self._limits.repeats):
            for cost in self._plain:
                where = (self._pools, cost, size, index)
                random[cost].append(cost_at_random(*where))
                if size * size <= _LARGEST_MATRIX:
                    matrix[cost].append(self._worker.call(partial(time_cost_matrix, *where)))
            for course in everyone:
                found = solved[course.name]
                if not course.stopped and self._is_worth(found, index):
                    found += self._solve(course, size, index)
        for course in everyone:
            if found := solved[course.name]:
                course.times[size] = _median_seconds(found)
        return [
            _row(
                size,
                course,
                solved[course.name],
                solved[self._plain[course.cost].name],
                matrix[course.cost],
                random[course.cost],
            )
            for course in everyone
        ]

    def _stop_if_slow(self, course: _Course, size: int) -> None:
        if course.stopped:
            return
        expected, limit = course.expected(size), self._limits.seconds
        if expected > limit:
            course.stopped = (
                f"not tried: it would take about {expected:.3g} s, the limit is {limit:g} s"
            )
        elif course in self._plain.values() and size > self._limits.reference:
            course.stopped = f"not tried beyond a pool of {self._limits.reference:,}, its limit"

    def _is_worth(self, found: Sequence[Solved], index: int) -> bool:
        """Whether to measure once more: a pool less is better than a long wait."""
        spent = sum(one.seconds for one in found)
        return len(found) == index and (
            not found or spent + found[-1].seconds <= self._limits.seconds
        )

    def _solve(self, course: _Course, size: int, index: int) -> list[Solved]:
        """Return what a pool took; nothing where it failed, which is noted."""
        self._tell(f"pool {size:,}, {index + 1} of {self._limits.repeats}: {course.name}")
        try:
            return [self._worker.call(partial(course.solve, size, index))]
        # A stranger's code may raise anything; the others are measured all the same.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            course.stopped = f"failed at a pool of {size:,}: {reason_of(error)}"
            return []


def _row(
    size: int,
    course: _Course,
    found: Sequence[Solved],
    plain: Sequence[Solved],
    matrix: Sequence[float],
    random: Sequence[float],
) -> Row:
    """Return the row of one competitor; ``plain``, ``matrix`` and ``random`` are of its cost."""
    if not found:
        return Row(size, course.name, course.cost, note=course.stopped)
    seconds = course.times[size]
    known = list(zip(random, found, plain, strict=False))
    gains = [(r - f.mean_cost) / (r - p.mean_cost) for r, f, p in known if r > p.mean_cost]
    bounds = [one.bound for one in found if one.bound is not None]
    peaks = [one.peak for one in found if one.peak is not None]
    return Row(
        pool=size,
        coupler=course.name,
        cost=course.cost,
        matrix_seconds=statistics.median(matrix) if matrix else None,
        seconds=seconds,
        each=tuple(one.seconds for one in found),
        speed=_median_seconds(plain) / seconds if plain else None,
        gap=max((f.mean_cost / p.mean_cost - 1 for _, f, p in known), default=None),
        bound=max(bounds) if len(bounds) == len(found) else None,
        gain=statistics.mean(gains) if gains else None,
        peak_bytes=max(peaks, default=None),
        images_per_second=found[0].pairs / seconds,
        mean_cost=statistics.mean(one.mean_cost for one in found),
        random_cost=statistics.mean(random[: len(found)]),
        note=course.stopped,
    )


def _median_seconds(found: Sequence[Solved]) -> float:
    """Return the median time of the pools, without the first where there are more."""
    return statistics.median(one.seconds for one in found[1:] or found)
