"""The exact assignment, most of it done by Sinkhorn's iteration, with a proof.

Dual potentials u (of the images) and v (of the noises) with ``C_ij - u_i - v_j >= 0`` for every
pair bound the total cost of any permutation from below by ``sum(u) + sum(v)``. Sinkhorn's
potentials nearly are such, so the pairs whose reduced cost is small under them, the arcs, nearly
always hold the optimum. The assignment among the arcs alone is solved exactly; its potentials,
held against every pair, then either prove that it is optimal for the whole matrix or name the
arcs that were missing (column generation).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from genkit_aot.arcs import Arcs, Floats, Integers
from genkit_aot.arcs import assign as assign_among
from genkit_aot.entropic import Costs, Potentials, potentials

SMALL = 128
"""Pools up to this size are solved by scipy on the whole matrix, which is faster there."""

EPSILON = 0.0625
"""Of the Sinkhorn potentials, in units of ``Costs.scale``: a smaller one takes longer and leaves
fewer arcs."""

ERROR, ITERATIONS = 0.1, 30
"""Where Sinkhorn's iteration stops: what it leaves undone only costs time afterwards."""

SHARE = 0.003
"""Least entry of the plan that makes an arc; a row of the plan sums to 1."""


def assign(costs: Costs, tolerance: float = 0.0) -> tuple[Tensor, float | None]:
    """Return the permutation of the noises of least total cost, and how near it surely is.

    Args:
        costs: of N images and N noises.
        tolerance: a gap that is good enough.

    Returns:
        ``[N]`` int64 on the CPU, the noise of each image; and the gap, see
        :class:`~genkit.types.Pairs`: 0 up to rounding for the optimum.
    """
    count = costs.shape[0]
    if count <= SMALL:
        from scipy.optimize import linear_sum_assignment

        matrix = costs.block(slice(0, count)).double().cpu().numpy()
        permutation = linear_sum_assignment(matrix)[1].astype(np.int64)
        u, v = dual_potentials(matrix, permutation)
        total = float(matrix[np.arange(count), permutation].sum())
        return torch.from_numpy(permutation), gap(total, float(u.sum() + v.sum()))
    found = potentials(costs, costs.epsilon(EPSILON), tolerance=ERROR, iterations=ITERATIONS)
    return assign_along(costs, found, tolerance)


def assign_along(costs: Costs, found: Potentials, tolerance: float) -> tuple[Tensor, float | None]:
    """Return what :func:`assign` does, starting from the potentials of a plan.

    Args:
        costs: of N images and N noises.
        found: the better, the fewer pairs have to be looked at.
        tolerance: a gap that is good enough.
    """
    limit = found.epsilon * math.log(1 / SHARE)
    arcs, _ = arcs_below(costs, found.f, found.g, limit, diagonal=True)
    v = found.g.double().cpu().numpy()
    while True:
        permutation, u, v = assign_among(arcs, v)
        # In float64, so that the proof is one for the costs as they are.
        on_images, on_noises = (torch.from_numpy(p).to(found.g.device) for p in (u, v))
        missing, least = arcs_below(costs, on_images, on_noises, -arcs.rounding)
        bound = gap(arcs.total(permutation), float((u + least).sum() + v.sum()))
        grown = arcs.joined(missing)
        if (bound is not None and bound <= tolerance) or len(grown) == len(arcs):
            return torch.from_numpy(permutation), bound
        arcs = grown


def gap(total: float, least: float) -> float | None:
    """Return how far a total cost is above a lower bound of it, as a share of the bound.

    None where the bound is 0 or below and says nothing of the kind.
    """
    if total <= least:
        return 0.0
    return total / least - 1 if least > 0 else None


def dual_potentials(matrix: Floats, permutation: Integers) -> tuple[Floats, Floats]:
    """Return potentials that prove a permutation optimal, if it is, after Bellman and Ford.

    They are valid whatever the permutation: ``C_ij - u_i - v_j >= 0`` for every pair.

    Args:
        matrix: ``[N, N]`` costs.
        permutation: ``[N]`` the noise of each image.
    """
    own = matrix[np.arange(len(matrix)), permutation]
    v = matrix.min(axis=0)
    for _ in range(len(matrix)):  # the most steps of a shortest path
        shorter = (matrix - (own - v[permutation])[:, None]).min(axis=0)
        if not (shorter < v).any():
            break
        v = np.minimum(v, shorter)
    return (matrix - v).min(axis=1), v


def arcs_below(
    costs: Costs, u: Tensor, v: Tensor, limit: float, *, diagonal: bool = False
) -> tuple[Arcs, Floats]:
    """Return the pairs of small reduced cost, and the least reduced cost of each image.

    Args:
        costs: of N images and N noises.
        u: ``[N]`` potentials of the images, in the type in which to compute.
        v: ``[N]`` potentials of the noises.
        limit: the largest reduced cost of an arc.
        diagonal: image k and noise k are an arc too, so that some permutation is possible.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    lowest: list[Tensor] = []
    for rows in costs.rows:
        block = costs.block(rows)
        reduced = (block - u[rows, None]).sub_(v)
        lowest.append(reduced.amin(1))
        if not diagonal and bool((lowest[-1] > limit).all()):
            continue  # as in the last round: to look for indices takes longer than all the rest
        chosen = reduced <= limit
        if diagonal:
            chosen.diagonal(rows.start).fill_(True)
        image, noise = chosen.nonzero(as_tuple=True)
        found.append((image + rows.start, noise, block[image, noise].double()))
    least: Floats = torch.cat(lowest).double().cpu().numpy()
    if not found:
        return Arcs.none(len(u)), least
    images, noises, values = (torch.cat(p).cpu().numpy() for p in zip(*found, strict=True))
    return Arcs(len(u), images, noises, values), least
