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
    """One competitor, the reference or a coupler, and its results so far.

    Attributes:
        name: name in the table.
        cost: cost that it minimises.
        solve: pairs pool ``index`` of a size.
        largest: largest pool that it is given; None for any.
        times: median seconds by size.
        stopped: why it is not tried any more.
        solved: results of the size that is measured, by pool.
    """

    name: str
    cost: Cost
    solve: Callable[[int, int], Solved]
    largest: int | None = None
    times: dict[int, float] = field(default_factory=dict)
    stopped: str = ""
    solved: list[Solved] = field(default_factory=list)

    def begin(self, size: int, limit: float) -> None:
        """Begin another size, unless it is too large or expected to take longer than a limit."""
        self.solved = []
        expected = self._expected(size)
        if self.stopped:
            return
        if expected > limit:
            self.stopped = (
                f"not tried: it would take about {expected:.3g} s, the limit is {limit:g} s"
            )
        elif self.largest is not None and size > self.largest:
            self.stopped = f"not tried beyond a pool of {self.largest:,}, its limit"

    def _expected(self, size: int) -> float:
        """Return the seconds that a pool will take: growing as before, or as the pairs do."""
        if not self.times:
            return 0.0
        *earlier, (last, seconds) = self.times.items()
        exponent = 2.0
        if earlier and earlier[-1][1] > 0 and seconds > 0:
            before, fewer = earlier[-1]
            exponent = max(1.0, math.log(seconds / fewer) / math.log(last / before))
        return float(seconds * (size / last) ** exponent)

    def is_worth(self, index: int, limit: float) -> bool:
        """Whether to measure pool ``index``: a pool less is better than a long wait."""
        spent = [one.seconds for one in self.solved]
        if self.stopped or len(spent) < index:
            return False
        return not spent or sum(spent) + spent[-1] <= limit

    def seconds(self) -> float | None:
        """Return the median time of the pools, without the first where there are more."""
        found = [one.seconds for one in self.solved]
        return statistics.median(found[1:] or found) if found else None

    def row(self, size: int, plain: _Course, matrix: list[float], random: list[float]) -> Row:
        """Return the row of a size.

        Args:
            size: images in a pool.
            plain: the reference for the same cost.
            matrix: seconds of the cost matrix of each pool.
            random: mean cost of each pool before coupling.
        """
        seconds, solved = self.seconds(), self.solved
        if seconds is None:
            return Row(size, self.name, self.cost, note=self.stopped)
        self.times[size] = seconds
        known = [
            (before, one.mean_cost, best.mean_cost)
            for before, one, best in zip(random, solved, plain.solved, strict=False)
        ]
        gains = [(before - cost) / (before - best) for before, cost, best in known if before > best]
        bounds = [one.bound for one in solved if one.bound is not None]
        against = plain.seconds()
        return Row(
            pool=size,
            coupler=self.name,
            cost=self.cost,
            matrix_seconds=statistics.median(matrix) if matrix else None,
            seconds=seconds,
            each=tuple(one.seconds for one in solved),
            speed=against / seconds if against else None,
            gap=max((cost / best - 1 for _, cost, best in known), default=None),
            bound=max(bounds) if len(bounds) == len(solved) else None,
            gain=statistics.mean(gains) if gains else None,
            peak_bytes=max((one.peak for one in solved if one.peak is not None), default=None),
            images_per_second=solved[0].pairs / seconds,
            mean_cost=statistics.mean(one.mean_cost for one in solved),
            random_cost=statistics.mean(random[: len(solved)]),
            note=self.stopped,
        )


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
        candidates: couplers to measure; those that could not be made have one row, with the reason.
        pools: pools to pair.
        sizes: sizes of the pools, ascending.
        limits: how long to go on.
        tell: is called with what is measured next, a line at a time.
    """
    courses = []
    for one in candidates:
        if one.coupler is None:
            yield Row(sizes[0], one.name, note=one.reason)
        else:
            paired = partial(solve, pools, one.coupler, bound=one.bound)
            courses.append(_Course(one.name, cost_of(one.coupler), paired))
    costs = sorted({course.cost for course in courses})
    plain = {
        cost: _Course(
            PLAIN if len(costs) == 1 else f"{PLAIN}, {cost}",
            cost,
            partial(solve_plainly, pools, cost),
            limits.reference,
        )
        for cost in costs
    }
    worker = Worker()

    def attempt(course: _Course, size: int, index: int) -> None:
        tell(f"pool {size:,}, {index + 1} of {limits.repeats}: {course.name}")
        try:
            course.solved.append(worker.call(partial(course.solve, size, index)))
        # A stranger's code may raise anything; the others are measured all the same.
        except (Exception, SystemExit) as error:  # noqa: BLE001
            course.stopped = f"failed at a pool of {size:,}: {reason_of(error)}"

    everyone = [*plain.values(), *courses]
    for course in everyone:  # so that no measured call imports anything
        attempt(course, min(sizes[0], _WARM_UP), 0)
    for size in sizes:
        for course in everyone:
            course.begin(size, limits.seconds)
        matrix: dict[Cost, list[float]] = {cost: [] for cost in costs}
        random: dict[Cost, list[float]] = {cost: [] for cost in costs}
        for index in range(limits.repeats):
            for cost in costs:
                where = (pools, cost, size, index)
                random[cost].append(cost_at_random(*where))
                if size * size <= _LARGEST_MATRIX:
                    matrix[cost].append(worker.call(partial(time_cost_matrix, *where)))
            for course in everyone:
                if course.is_worth(index, limits.seconds):
                    attempt(course, size, index)
        for course in everyone:
            cost = course.cost
            yield course.row(size, plain[cost], matrix[cost], random[cost])
