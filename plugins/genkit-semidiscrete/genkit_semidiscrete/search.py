"""Maximum inner product search for the image in whose cell a noise sample lies.

With potential h, noise z is assigned to the image i with maximal <x_i, z> + h_i. The squared
distance |x_i - z|^2 / 2 differs from -<x_i, z> by |x_i|^2 / 2, which h includes, and by |z|^2 / 2,
which is the same for all images. The noise assigned to an image forms its Laguerre cell.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

NOISES = 1024
"""Number of noise samples per block of scores; chosen, not tuned."""

IMAGES = 8192
"""Number of images per block of scores, so that memory does not grow with the data set."""


def search(points: Tensor, potential: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image to which each noise sample is assigned.

    Args:
        points: ``[K, D]`` float32 images.
        potential: ``[K]`` float32 potential of each image.
        noise: ``[M, D]`` float32 noise samples.

    Returns:
        ``[M]`` int64 index of the image with the highest score, the lowest index if several are
        equal; and ``[M]`` this score, <x, z> + h.
    """
    indices, best = [], []
    for part in torch.split(noise, NOISES):
        index = torch.zeros(len(part), dtype=torch.int64, device=noise.device)
        score = torch.full((len(part),), -torch.inf, device=noise.device)
        for first, scores in _scores(points, potential, part):
            highest, place = scores.max(dim=1)
            better = highest > score
            index = torch.where(better, first + place, index)
            score = torch.where(better, highest, score)
        indices.append(index)
        best.append(score)
    return torch.cat(indices), torch.cat(best)


def margin(points: Tensor, potential: Tensor, noise: Tensor) -> float:
    """Return the mean difference between the scores of the best and the second-best image.

    Args:
        points: as for :func:`search`, at least two.
        potential: as for :func:`search`.
        noise: as for :func:`search`, at most ``NOISES``.
    """
    best = torch.full((len(noise), 2), -torch.inf, device=noise.device)
    for _, scores in _scores(points, potential, noise):
        top = scores.topk(min(2, scores.shape[1]), dim=1).values
        best = torch.cat([best, top], dim=1).topk(2, dim=1).values
    return float((best[:, 0] - best[:, 1]).mean())


def _scores(points: Tensor, potential: Tensor, noise: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the index of a block's first image, and the scores ``[len(noise), up to IMAGES]``."""
    for first in range(0, len(points), IMAGES):
        block = slice(first, first + IMAGES)
        yield first, (noise @ points[block].T).add_(potential[block])
