"""Nearest neighbors in feature space, and the scores that are computed from them.

Distances are computed in blocks in float64, which limits memory. Precision, recall, density and
coverage of 20,000 samples and 20,000 real items with 2,048 features take 153 MB and 2.5 minutes on
one core (``benchmarks/metrics.py prdc``). A matrix of all distances would take 3.2 GB.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK = 512
"""Items on each side of a block of distances. A block takes 2 MB, and its items take 8 MB if they
have 2,048 features. Chosen to fit into the cache, not tuned."""


def blocks(features: Tensor, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of consecutive rows of features: their slice, and the rows in float64.

    Args:
        features: features on the CPU, of any floating-point type, ``[N, F]``.
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
        count: number of neighbors of each query, K.
        device: device of the computation.
        own: index of each query among the items, ``[Q]`` int64; this item is not a neighbor of the
            query. None if the queries are not among the items.

    Returns:
        Distances ``[Q, K]`` float64 and indices of the items ``[Q, K]`` int64, on the CPU.
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
        # Distances are recomputed without cancellation, so that copies have distance 0.
        offsets = (query - items[column].to(query) for column in indices[-1].T)
        distances.append(torch.stack([offset.norm(dim=1).cpu() for offset in offsets], 1))
    return torch.cat(distances), torch.cat(indices)


def manifold_scores(
    real: Tensor, fake: Tensor, neighbors: int, device: torch.device
) -> dict[str, float]:
    """Return precision, recall, density and coverage of samples.

    Each item has an open ball, whose radius is the distance to its k-th nearest neighbor in the
    same set (real items or samples).

    - Precision is the share of samples in at least one ball of a real item.
    - Recall is the share of real items in at least one ball of a sample.
    - Density is the number of balls of real items that a sample is in, divided by k, averaged over
      the samples.
    - Coverage is the share of balls of real items that contain at least one sample.

    Args:
        real: features of more than ``neighbors`` real items, ``[N, F]``.
        fake: features of more than ``neighbors`` samples, ``[M, F]``.
        neighbors: k.
        device: device of the computation.

    Returns:
        Dict from the name of each score to its value.
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
