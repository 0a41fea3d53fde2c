"""The Hungarian method on a sparse graph, in phases that each match many images.

The potentials u and v keep every reduced cost ``C_ij - u_i - v_j`` nonnegative. An arc of reduced
cost 0 is tight. A perfect matching of tight arcs has minimal cost (complementary slackness). Each
phase finds a maximum matching of tight arcs (Hopcroft and Karp). If images remain unmatched, it
updates the potentials by the shortest distances from these images, which makes shortest augmenting
paths tight and keeps matched arcs tight (Edmonds and Karp). Fredman and Tarjan 1987,
doi 10.1145/28869.28874, section 3, describe the method with one path per phase.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ROUNDING = 1e-12
"""Maximum reduced cost of a tight arc, relative to the maximum cost; float64 rounds at 1e-16."""

REACHED_SHARE = 0.75
"""Share of the unmatched noise samples that lie within the distance limit of a phase. With this
value, pools of 4,096 synthetic images take 10 to 14 phases; with 0.25 they take 20 to 22. With 1,
the potentials change so much that reduced costs of pairs without arcs become negative, which takes
up to 5 rounds of column generation and 64 phases."""


@dataclass(frozen=True)
class Arcs:
    """Candidate pairs of N images and N noise samples.

    Attributes:
        count: number N of images.
        image: ``[E]`` index of the image of each arc, ascending.
        noise: ``[E]`` index of its noise sample.
        cost: ``[E]`` cost of the pair.
    """

    count: int
    image: Integers
    noise: Integers
    cost: Floats

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def none(cls, count: int) -> Arcs:
        """Return an empty set of arcs."""
        empty = np.empty(0, dtype=np.int64)
        return cls(count, empty, empty, np.empty(0))

    @property
    def rounding(self) -> float:
        """Maximum reduced cost that may be 0 up to rounding."""
        return ROUNDING * float(np.abs(self.cost).max())

    def union(self, other: Arcs) -> Arcs:
        """Return the union of the arcs."""
        keys = np.concatenate([a.image * self.count + a.noise for a in (self, other)])
        keys, first = np.unique(keys, return_index=True)
        image, noise = np.divmod(keys, self.count)
        return Arcs(self.count, image, noise, np.concatenate([self.cost, other.cost])[first])

    def total(self, permutation: Integers) -> float:
        """Return the total cost of a permutation that consists of arcs."""
        return float(self.cost[permutation[self.image] == self.noise].sum())


def assign(arcs: Arcs, v: Floats) -> tuple[Integers, Floats, Floats]:
    """Return the permutation of minimal cost among the arcs, and potentials that prove its cost.

    Args:
        arcs: arcs that contain a permutation.
        v: ``[N]`` initial potentials of the noise samples. Potentials close to the optimum save
            time.

    Returns:
        ``[N]`` index of the noise sample of each image; ``[N]`` potentials u of the images; and
        ``[N]`` potentials v of the noise samples.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra, maximum_bipartite_matching

    count, image, noise = arcs.count, arcs.image, arcs.noise
    rounding = arcs.rounding
    starts = np.searchsorted(image, np.arange(count + 1))
    by_noise = np.argsort(noise, kind="stable")
    noise_starts = np.searchsorted(noise[by_noise], np.arange(count))
    # The largest potentials that keep reduced costs nonnegative, so that each image and each noise
    # sample has a tight arc.
    u = np.minimum.reduceat(arcs.cost - v[noise], starts[:-1])
    v = np.minimum.reduceat((arcs.cost - u[image])[by_noise], noise_starts)
    columns = noise.astype(np.int32)  # converted once, because scipy uses it in every phase
    while True:
        reduced = arcs.cost - u[image] - v[noise]
        tight = reduced <= rounding
        before = np.concatenate([[0], tight.cumsum(dtype=np.int32)], dtype=np.int32)
        graph = csr_array((tight[tight], columns[tight], before[starts]), shape=(count, count))
        paired = maximum_bipartite_matching(graph, perm_type="column")
        free = paired < 0
        if not free.any():
            return paired.astype(np.int64), u, v
        # A graph of augmenting paths. Its nodes are the images and the unmatched noise samples. A
        # matched noise sample is represented by its image, where the path continues.
        node = np.full(count, -1, dtype=np.int32)
        node[paired[~free]] = np.flatnonzero(~free)
        unmatched = np.flatnonzero(node < 0)
        node[unmatched] = count + np.arange(len(unmatched))
        ends = np.concatenate([starts, np.full(len(unmatched), len(arcs))], dtype=np.int32)
        graph = csr_array(
            (reduced.clip(min=0), node[noise], ends), shape=2 * (count + len(unmatched),)
        )
        distance = dijkstra(graph, indices=np.flatnonzero(free), min_only=True)
        # Limiting the distance keeps changes of the potentials small. They then stay feasible for
        # more of the pairs without arcs.
        last = math.ceil(REACHED_SHARE * len(unmatched)) - 1
        limit = np.partition(distance[count:], last)[last]
        if not math.isfinite(limit):  # some unmatched samples are unreachable in this phase
            limit = distance[np.isfinite(distance)].max()
        distance = distance.clip(max=limit)
        u, v = u - distance[:count], v + distance[node]
