"""Measure the time, memory and mean cost of a coupler, or of plain scipy, on one pool."""

from __future__ import annotations

import dataclasses
import time
import typing
from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from genkit.interfaces import (
    AnyCoupler,
    BoundCoupler,
    BoundDatasetCoupler,
    Coupler,
    DatasetCoupler,
)
from genkit.pairs import pairs_of
from genkit.parts.no_stages import NoStages
from genkit.tensors import Cost, pairwise_cost
from genkit_bench.meters import PeakMemory, wait_for
from genkit_bench.pools import Pools

_BLOCK = 1024  # number of pairs whose cost is computed at a time, which limits memory


@dataclass(frozen=True)
class Solved:
    """Measurements of one call.

    Attributes:
        seconds: seconds of the whole call.
        peak: additional memory during the call, in bytes; None if it cannot be measured.
        pairs: number of pairs.
        mean_cost: mean cost of the pairs, summed in float64.
        bound: upper bound of the gap that the coupler returned, see :class:`genkit.types.Pairs`.
    """

    seconds: float
    peak: int | None
    pairs: int
    mean_cost: float
    bound: float | None = None


def cost_of(coupler: AnyCoupler) -> Cost:
    """Return the name of the cost that a coupler minimizes, ``euclidean`` if unknown.

    If the coupler has no setting ``cost``, the cost of its inner coupler is returned, if any.
    """
    own = getattr(coupler, "cost", None)
    for cost in typing.get_args(Cost):
        if own == cost:
            return typing.cast("Cost", cost)
    for field in dataclasses.fields(coupler):
        if isinstance(inner := getattr(coupler, field.name), AnyCoupler):
            return cost_of(inner)
    return "euclidean"


def mean_cost(data: Tensor, noise: Tensor, cost: Cost) -> float:
    """Return the mean cost of the pairs ``(data[k], noise[k])``.

    Args:
        data: images, ``[M, *shape]``.
        noise: noise, ``[M, *shape]``.
        cost: name of the cost of a pair.
    """
    total = 0.0
    for start in range(0, len(data), _BLOCK):
        block = slice(start, start + _BLOCK)
        # On the CPU, since some devices do not support float64.
        squares = (
            (data[block].cpu().double() - noise[block].cpu().double()).square().flatten(1).sum(1)
        )
        total += float((squares if cost == "squared" else squares.sqrt()).sum())
    return total / len(data)


def solve(
    pools: Pools,
    coupler: AnyCoupler,
    size: int,
    index: int,
    bound: BoundCoupler | BoundDatasetCoupler | None = None,
) -> Solved:
    """Measure a coupler on one pool.

    A dataset coupler assigns ``size`` noise samples to items of the whole data set. Other couplers
    receive as many noise samples as they declare.

    Args:
        pools: pools of the data.
        coupler: coupler to measure.
        size: number of images in the pool.
        index: index of the pool.
        bound: object that ``coupler.bind`` returned; by default ``bind`` is called first.

    Raises:
        DataError: the coupler returned invalid pairs.
    """
    whole = isinstance(coupler, DatasetCoupler)
    batch = pools.data.to(pools.device) if whole else pools.batch(size, index)
    ready = bound or coupler.bind(NoStages())
    several = coupler.noises_per_image if isinstance(coupler, Coupler) else 1
    noise = pools.noise(size, index, several)
    draws = torch.Generator().manual_seed(index)
    with PeakMemory(pools.device, enabled=index == 0) as peak:
        start = time.perf_counter()
        pairs = pairs_of(coupler, ready, batch, noise, draws)
        wait_for(pools.device)
        seconds = time.perf_counter() - start
    paired = batch.data[pairs.data.to(pools.device)], noise[pairs.noise.to(pools.device)]
    cost = mean_cost(*paired, cost_of(coupler))
    return Solved(seconds, peak.bytes, len(pairs), cost, pairs.gap)


def solve_plainly(pools: Pools, cost: Cost, size: int, index: int) -> Solved:
    """Measure the reference on one pool: the full cost matrix, then ``linear_sum_assignment``.

    For the time, the matrix is computed in float32 and converted to float64, as in scipy. For the
    mean cost, the matrix is computed in float64, so that the optimum is exact.
    """
    batch, noise = pools.batch(size, index), pools.noise(size, index)
    exact = pairwise_cost(batch.data.cpu().double(), noise.cpu().double(), cost).numpy()
    with PeakMemory(pools.device, enabled=index == 0) as peak:
        start = time.perf_counter()
        converted = pairwise_cost(batch.data, noise, cost).cpu().double()
        rows, columns = linear_sum_assignment(exact)
        seconds = time.perf_counter() - start
        del converted
    return Solved(seconds, peak.bytes, size, float(exact[rows, columns].mean()))


def time_cost_matrix(pools: Pools, cost: Cost, size: int, index: int) -> float:
    """Return the seconds of ``genkit.tensors.pairwise_cost`` for one pool."""
    batch, noise = pools.batch(size, index), pools.noise(size, index)
    start = time.perf_counter()
    pairwise_cost(batch.data, noise, cost)
    wait_for(pools.device)
    return time.perf_counter() - start


def cost_at_random(pools: Pools, cost: Cost, size: int, index: int) -> float:
    """Return the mean cost of random pairs in a pool: noise k is assigned to image k."""
    return mean_cost(pools.batch(size, index).data, pools.noise(size, index), cost)
