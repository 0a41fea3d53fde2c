"""Nearest neighbors in feature space, and the manifold estimates from them, in bounded memory.

Distances are computed in blocks in float64. Precision, recall, density and coverage of 20,000
samples against 20,000 items of 2,048 features take 153 MB of memory, where a matrix of all
distances has 3.2 GB, and 2.5 minutes on one core (``benchmarks/metrics.py prdc``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 512
"""Items on each side of a block of distances: 2 MB, and 8 MB of features at 2,048 each. Chosen to
fit the cache, not tuned."""


def blocks(features: Tensor, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Yield the rows of features in blocks in float64.

    Args:
        features: features on the CPU, of any floating type, ``[N, F]``.
        device: device of the blocks; replaced by the CPU if it does not support float64.
    """
    where = torch.device("cpu") if device.type == "mps" else device
    for start in range(0, len(features), BLOCK):
        rows = slice(start, min(start + BLOCK, len(features)))
        yield rows, features[rows].to(where, torch.float64)


def squared_distances(first: Tensor, second: Tensor) -> Tensor:
    """Return the squared distances ``[A, B]`` of features ``[A, F]`` and ``[B, F]``."""
    result = first @ second.T
    result.mul_(-2).add_(first.square().sum(1)[:, None]).add_(second.square().sum(1))
    return result.clamp_(min=0)  # rounding may give small values below 0


def nearest(
    queries: Tensor,
    items: Tensor,
    count: int,
    device: torch.device,
    own: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the nearest items of each query, nearest first.

    Args:
        queries: features of the queries, ``[Q, F]``.
        items: features of more than ``count`` items, ``[M, F]``.
        count: number of neighbors, K.
        device: device of the computation.
        own: index of each query among the items, ``[Q]`` int64, which is excluded from its
            neighbors; None if the queries are not among the items.

    Returns:
        Distances ``[Q, K]`` float64 and indices of items ``[Q, K]`` int64, on the CPU.
    """
    distances, indices = [], []
    for rows, query in blocks(queries, device):
        best = query.new_full((len(query), count), torch.inf)
        index = torch.full_like(best, -1, dtype=torch.int64)
        for columns, item in blocks(items, device):
            squared = squared_distances(query, item)
            places = torch.arange(columns.start, columns.stop, device=query.device)
            if own is not None:
                squared[own[rows, None].to(query.device) == places] = torch.inf
            best, columns_of_best = torch.cat([best, squared], 1).topk(count, largest=False)
            index = torch.cat([index, places.expand_as(squared)], 1).gather(1, columns_of_best)
        indices.append(index.cpu())
        # Recomputed without cancellation, so that the distance of copies is exactly 0.
        offsets = (query - items[column].to(query) for column in indices[-1].T)
        distances.append(torch.stack([offset.norm(dim=1).cpu() for offset in offsets], 1))
    return torch.cat(distances), torch.cat(indices)


def manifold_scores(
    real: Tensor, fake: Tensor, neighbors: int, device: torch.device
) -> dict[str, float]:
    """Return precision, recall, density and coverage of samples.

    The manifold of a set is the union of open balls around its items, whose radii are the distances
    to the k-th neighbor within the set. Precision is the share of samples in the manifold of the
    real items, and recall the share of real items in the manifold of the samples. Density is the
    mean number of real balls that contain a sample, divided by k. Coverage is the share of real
    balls that contain a sample.

    Args:
        real: features of more than ``neighbors`` real items, ``[N, F]``.
        fake: features of more than ``neighbors`` samples, ``[M, F]``.
        neighbors: index of the neighbor that defines the radii, k.
        device: device of the computation.
    """
    real_radii, fake_radii = (_squared_radii(items, neighbors, device) for items in (real, fake))
    balls = torch.zeros(len(fake), dtype=torch.int64)
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool) for _ in range(2))
    for rows, real_block in blocks(real, device):
        for columns, fake_block in blocks(fake, device):
            squared = squared_distances(real_block, fake_block)
            inside = squared < real_radii[rows, None].to(squared.device)
            balls[columns] += inside.sum(0).cpu()
            covered[rows] |= inside.any(1).cpu()
            recalled[rows] |= (squared < fake_radii[columns].to(squared.device)).any(1).cpu()
    return {
        "precision": float((balls > 0).double().mean()),
        "recall": float(recalled.double().mean()),
        "density": float(balls.double().mean()) / neighbors,
        "coverage": float(covered.double().mean()),
    }


def _squared_radii(items: Tensor, neighbors: int, device: torch.device) -> Tensor:
    distances, _ = nearest(items, items, neighbors, device, torch.arange(len(items)))
    return distances[:, -1].square()
