"""Exact assignment by Sinkhorn's iteration, a sparse solver and a proof of optimality.

Dual potentials u (images) and v (noise samples) are feasible if ``C_ij - u_i - v_j >= 0`` for every
pair; then ``sum(u) + sum(v)`` is a lower bound of the total cost of any permutation. Sinkhorn's
potentials are nearly feasible. So the arcs, which are the pairs with a small reduced cost, nearly
always contain the optimum. The assignment among the arcs is solved exactly, and its potentials are
checked for all pairs. If they are feasible, they prove that the assignment is optimal for the whole
matrix. Otherwise the violating pairs are added to the arcs (column generation).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from genkit_aot.arcs import Arcs, Floats, Integers
from genkit_aot.arcs import assign as assign_among
from genkit_aot.entropic import Costs, Potentials, potentials

DENSE_SIZE = 128
"""Maximum size of pools for which scipy solves the whole matrix, which is faster for small
pools."""

EPSILON = 0.0625
"""Epsilon of the Sinkhorn potentials, in units of ``Costs.scale``. For pools of 4,096 synthetic
images, this value leads to 6 arcs per image and 1 or 2 rounds of column generation. With 0.03 there
are 7 rounds, which take twice the time; with 0.25 there are 42 arcs per image."""

TOLERANCE, ITERATIONS = 0.1, 30
"""Error and number of iterations at which Sinkhorn's iteration stops. The assignment is exact in
any case; a larger error only makes the following steps slower. With 0.3, pools of 4,096 synthetic
images take 3 or 4 rounds of column generation and twice the time; 0.03 saves no time."""

MIN_ENTRY = 0.003
"""Minimum entry of the plan that becomes an arc, where each row of the plan sums to 1. With 0.01
there are 4 or 5 rounds of column generation for pools of 4,096 synthetic images, instead of 1 or
2."""


def assign(costs: Costs, tolerance: float = 0.0) -> tuple[Tensor, float | None]:
    """Return a permutation of minimal total cost, and its gap.

    Args:
        costs: costs of N images and N noise samples.
        tolerance: gap at which the search stops.

    Returns:
        ``[N]`` int64 on the CPU, index of the noise sample of each image; and the gap, see
        :class:`~genkit.types.Pairs`, which is 0 up to rounding for the optimum.
    """
    count = costs.shape[0]
    if count <= DENSE_SIZE:
        from scipy.optimize import linear_sum_assignment

        matrix = costs.block(slice(0, count)).double().cpu().numpy()
        permutation = linear_sum_assignment(matrix)[1].astype(np.int64)
        u, v = solve_dual(matrix, permutation)
        total = float(matrix[np.arange(count), permutation].sum())
        return torch.from_numpy(permutation), gap(total, float(u.sum() + v.sum()))
    dual = potentials(costs, costs.epsilon(EPSILON), tolerance=TOLERANCE, iterations=ITERATIONS)
    return assign_from(costs, dual, tolerance)


def assign_from(costs: Costs, dual: Potentials, tolerance: float) -> tuple[Tensor, float | None]:
    """Return the result of :func:`assign`, starting from Sinkhorn potentials.

    Args:
        costs: costs of N images and N noise samples.
        dual: Sinkhorn potentials. The closer they are to the optimum, the fewer arcs are needed.
        tolerance: gap at which the search stops.
    """
    limit = dual.epsilon * math.log(1 / MIN_ENTRY)
    arcs, _ = find_arcs(costs, dual.f, dual.g, limit, diagonal=True)
    v = dual.g.double().cpu().numpy()
    while True:
        permutation, u, v = assign_among(arcs, v)
        # Reduced costs in float64: rounding the potentials to float32 would invalidate the proof.
        u_torch, v_torch = (torch.from_numpy(p).to(dual.g.device) for p in (u, v))
        missing, min_reduced = find_arcs(costs, u_torch, v_torch, -arcs.rounding)
        # Adding the minimum reduced cost to u makes the potentials feasible.
        bound = gap(arcs.total(permutation), float((u + min_reduced).sum() + v.sum()))
        extended = arcs.union(missing)
        if (bound is not None and bound <= tolerance) or len(extended) == len(arcs):
            return torch.from_numpy(permutation), bound
        arcs = extended


def gap(total: float, bound: float) -> float | None:
    """Return the relative excess of a total cost over a lower bound.

    Return None if the bound is not positive, because a relative excess is then meaningless.
    """
    if total <= bound:
        return 0.0
    return total / bound - 1 if bound > 0 else None


def solve_dual(matrix: Floats, permutation: Integers) -> tuple[Floats, Floats]:
    """Return feasible potentials, computed by Bellman and Ford's algorithm.

    The potentials are feasible for any permutation: ``C_ij - u_i - v_j >= 0`` for every pair. If
    the permutation is optimal, they prove that it is.

    Args:
        matrix: ``[N, N]`` costs.
        permutation: ``[N]`` index of the noise sample of each image.
    """
    own = matrix[np.arange(len(matrix)), permutation]
    v = matrix.min(axis=0)
    for _ in range(len(matrix)):  # a shortest path has at most N steps
        shorter = (matrix - (own - v[permutation])[:, None]).min(axis=0)
        if not (shorter < v).any():
            break
        v = np.minimum(v, shorter)
    return (matrix - v).min(axis=1), v


def find_arcs(
    costs: Costs, u: Tensor, v: Tensor, limit: float, *, diagonal: bool = False
) -> tuple[Arcs, Floats]:
    """Return the pairs with small reduced cost, and the minimum reduced cost of each image.

    Args:
        costs: costs of N images and N noise samples.
        u: ``[N]`` potentials of the images; the computation has their dtype.
        v: ``[N]`` potentials of the noise samples.
        limit: maximum reduced cost of an arc.
        diagonal: whether to add the arcs (k, k), so that the arcs contain a permutation.
    """
    blocks: list[tuple[Tensor, Tensor, Tensor]] = []
    minima: list[Tensor] = []
    for rows in costs.rows:
        block = costs.block(rows)
        reduced = (block - u[rows, None]).sub_(v)
        minima.append(reduced.amin(1))
        if not diagonal and bool((minima[-1] > limit).all()):
            continue  # as in the last round; saves nonzero(), the slowest call here
        mask = reduced <= limit
        if diagonal:
            mask.diagonal(rows.start).fill_(True)
        image, noise = mask.nonzero(as_tuple=True)
        blocks.append((image + rows.start, noise, block[image, noise].double()))
    min_reduced: Floats = torch.cat(minima).double().cpu().numpy()
    if not blocks:
        return Arcs.none(len(u)), min_reduced
    images, noises, values = (torch.cat(p).cpu().numpy() for p in zip(*blocks, strict=True))
    return Arcs(len(u), images, noises, values), min_reduced
