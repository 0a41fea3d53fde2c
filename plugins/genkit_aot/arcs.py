"""The Hungarian method on a sparse graph, in phases that match many images at a time.

The potentials u and v keep every reduced cost ``C_ij - u_i - v_j`` at 0 or above; arcs at 0 are
tight. A perfect matching of tight arcs is of least cost, whatever the potentials (complementary
slackness). So: match as many images as the tight arcs allow (Hopcroft and Karp); where some are
left free, raise the potentials by the distances from them, which keeps what is tight and makes
shortest augmenting paths tight (Edmonds and Karp); and again. Fredman and Tarjan 1987,
doi 10.1145/28869.28874, section 3, has the method with one path a phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDING = 1e-12
"""What counts as 0 among reduced costs, as a fraction of the largest cost; float64 has 1e-16."""

MOST = 0.75
"""Share of the noises left in a phase to which potentials are raised: more makes fewer phases, and
potentials that more pairs outside the arcs contradict."""


@dataclass(frozen=True)
class Arcs:
    """Some of the pairs of N images and N noises.

    Attributes:
        count: N.
        image: ``[E]`` index of the image, ascending.
        noise: ``[E]`` index of the noise.
        cost: ``[E]`` of the two.
    """

    count: int
    image: Integers
    noise: Integers
    cost: Floats

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def none(cls, count: int) -> Arcs:
        """Return no arcs."""
        empty = np.empty(0, dtype=np.int64)
        return cls(count, empty, empty, np.empty(0))

    @property
    def rounding(self) -> float:
        """The least reduced cost that is surely above 0."""
        return ROUNDING * float(np.abs(self.cost).max())

    def joined(self, other: Arcs) -> Arcs:
        """Return the arcs of both, each once."""
        keys = np.concatenate([a.image * self.count + a.noise for a in (self, other)])
        keys, first = np.unique(keys, return_index=True)
        image, noise = np.divmod(keys, self.count)
        return Arcs(self.count, image, noise, np.concatenate([self.cost, other.cost])[first])

    def total(self, permutation: Integers) -> float:
        """Return the total cost of a permutation all of whose pairs are arcs."""
        return float(self.cost[permutation[self.image] == self.noise].sum())


def assign(arcs: Arcs, v: Floats) -> tuple[Integers, Floats, Floats]:
    """Return the permutation of least cost among the arcs, and potentials that prove it.

    Args:
        arcs: at least one of every image and of every noise, and a permutation among them.
        v: ``[N]`` potentials of the noises to begin with; the better, the faster.

    Returns:
        ``[N]`` the noise of each image, u and v.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra, maximum_bipartite_matching

    count, image, noise = arcs.count, arcs.image, arcs.noise
    rounding = arcs.rounding
    starts = np.searchsorted(image, np.arange(count + 1))
    by_noise = np.argsort(noise, kind="stable")
    noise_starts = np.searchsorted(noise[by_noise], np.arange(count))
    # The largest potentials that keep every reduced cost at 0 or above: each image and each
    # noise has a tight arc.
    u = np.minimum.reduceat(arcs.cost - v[noise], starts[:-1])
    v = np.minimum.reduceat((arcs.cost - u[image])[by_noise], noise_starts)
    columns = noise.astype(np.int32)  # scipy would convert to it every time
    while True:
        reduced = arcs.cost - u[image] - v[noise]
        tight = reduced <= rounding
        before = np.concatenate([[0], tight.cumsum(dtype=np.int32)], dtype=np.int32)
        graph = csr_array((tight[tight], columns[tight], before[starts]), shape=(count, count))
        paired = maximum_bipartite_matching(graph, perm_type="column")
        free = paired < 0
        if not free.any():
            return paired.astype(np.int64), u, v
        # The nodes are the images, and the noises that are left; an arc leads from an image to
        # the one that has the noise, which would have to look for another.
        node = np.full(count, -1, dtype=np.int32)
        node[paired[~free]] = np.flatnonzero(~free)
        left = np.flatnonzero(node < 0)
        node[left] = count + np.arange(len(left))
        ends = np.concatenate([starts, np.full(len(left), len(arcs))], dtype=np.int32)
        graph = csr_array((reduced.clip(min=0), node[noise], ends), shape=2 * (count + len(left),))
        distance = dijkstra(graph, indices=np.flatnonzero(free), min_only=True)
        # No further than most of the noises that are left: potentials that move little stay valid
        # for the pairs that are no arcs.
        most = math.ceil(MOST * len(left)) - 1
        limit = np.partition(distance[count:], most)[most]
        if not math.isfinite(limit):  # not all are within reach
            limit = distance[np.isfinite(distance)].max()
        distance = distance.clip(max=limit)
        u, v = u - distance[:count], v + distance[node]
