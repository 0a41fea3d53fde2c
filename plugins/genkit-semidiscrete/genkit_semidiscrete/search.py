"""Maximum inner product search: the image whose cell a noise falls into.

With h the potential, noise z belongs to the image i of greatest <x_i, z> + h_i. The squared
distance |x_i - z|^2 / 2 differs from -<x_i, z> by one term of the image, which h holds, and one of
the noise, which favours no image. The noises of an image form its Laguerre cell.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

NOISES = 1024
"""Noises that are compared at a time."""

IMAGES = 8192
"""Images that are compared at a time, so that memory does not grow with the data set."""


def search(points: Tensor, potential: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image of each noise.

    Args:
        points: ``[K, D]`` float32 images.
        potential: ``[K]`` float32.
        noise: ``[M, D]`` float32.

    Returns:
        Indices into the images, ``[M]`` int64, the lowest where several are best; and the score
        <x, z> + h of each, ``[M]``.
    """
    chosen, best = [], []
    for part in torch.split(noise, NOISES):
        index = torch.zeros(len(part), dtype=torch.int64, device=noise.device)
        score = torch.full((len(part),), -torch.inf, device=noise.device)
        for first, scores in _scores(points, potential, part):
            found, place = scores.max(dim=1)
            better = found > score
            index = torch.where(better, first + place, index)
            score = torch.where(better, found, score)
        chosen.append(index)
        best.append(score)
    return torch.cat(chosen), torch.cat(best)


def lead(points: Tensor, potential: Tensor, noise: Tensor) -> float:
    """Return by how much the best image leads the second in score, averaged over noises.

    Arguments as for :func:`search`, with two images at least and up to ``NOISES`` noises.
    """
    best = torch.full((len(noise), 2), -torch.inf, device=noise.device)
    for _, scores in _scores(points, potential, noise):
        heads = scores.topk(min(2, scores.shape[1]), dim=1).values
        best = torch.cat([best, heads], dim=1).topk(2, dim=1).values
    return float((best[:, 0] - best[:, 1]).mean())


def _scores(points: Tensor, potential: Tensor, noise: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield ``[len(noise), up to IMAGES]`` scores with the index of their first image."""
    for first in range(0, len(points), IMAGES):
        block = slice(first, first + IMAGES)
        yield first, (noise @ points[block].T).add_(potential[block])
