"""The semidual problem of one set of images.

Where image i shall take the share b_i of all noises, its potential h maximises the concave

    sum_i b_i h_i - E max_i (<x_i, z> + h_i),    z ~ N(0, I),

whose gradient is b_i less the share that i takes now: the potential of an image falls while it is
chosen too often (Genevay et al., arXiv 1605.08527; arXiv 2509.25519, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genkit_semidiscrete.search import lead, search

_CURVATURES = 13
"""Starting potentials that are tried."""


@dataclass(frozen=True)
class Cells:
    """Images that share out all noise among themselves.

    Attributes:
        points: ``[K, D]`` float32, no two alike, where to compute.
        shares: ``[K]`` float64 on the CPU, of all noises, that each shall take; they sum to 1.
    """

    points: Tensor
    shares: Tensor

    @cached_property
    def squared(self) -> Tensor:
        """Squared length of each image, ``[K]`` float64 on the CPU."""
        length: Tensor = torch.linalg.vector_norm(self.points, dim=1)
        return length.cpu().double().square()

    def choose(self, potential: Tensor, noise: Tensor) -> tuple[Tensor, float]:
        """Let noises choose.

        Args:
            potential: ``[K]`` float64 on the CPU, as in all of these functions.
            noise: ``[M, D]`` float32, where the images are.

        Returns:
            How many noises chose each image, ``[K]`` float64; and the sum of <x, z> + h over the
            choices.
        """
        index, score = search(self.points, self._there(potential), noise)
        counts = torch.bincount(index.cpu(), minlength=len(self.points)).double()
        return counts, float(score.cpu().double().sum())

    def start(self, noise: Tensor) -> Tensor:
        """Return the potential from which to ascend, by what noises ``[M, D]`` choose.

        It is -c |x_i - mean|^2 / 2, exact for very many images of an isotropic normal
        distribution; the c of the least marginal error is taken. All potentials here are such
        that their mean, weighted by the shares, is 0.
        """
        if len(self.points) == 1:
            return torch.zeros_like(self.shares)
        mean = self._there(self.shares) @ self.points
        across = (self.points @ mean).cpu().double()
        spread = self.squared - 2 * across + float(mean.square().sum())
        mean_spread = float(self.shares @ spread)
        tried = [
            2 ** (k / 2 - 2) / math.sqrt(mean_spread) * (mean_spread - spread) / 2
            for k in range(_CURVATURES)
        ]
        return min(tried, key=lambda h: chi_squared(self.choose(h, noise)[0], self.shares))

    def lead(self, potential: Tensor, noise: Tensor) -> float:
        """Return the unit of steps: the mean lead of the best image over the second."""
        alone = len(self.points) == 1
        return 0.0 if alone else lead(self.points, self._there(potential), noise)

    def ascended(self, potential: Tensor, counts: Tensor, size: float) -> Tensor:
        """Return the potential after one step.

        Args:
            potential: by which was chosen.
            counts: ``[K]`` of the choices.
            size: how far the potential of an image falls that is chosen twice as often as it
                should.
        """
        noises = counts.sum()
        # With fewer noises than images, one chance choice must not throw an image far out.
        damped = min(1.0, float(noises) / len(counts))
        moved = potential + size * damped * (1 - counts / noises / self.shares)
        return moved - self.shares @ moved

    def objective(self, score: float) -> float:
        """Return the semidual value: up to sampling a lower bound of E|x - z|^2 / 2.

        Args:
            score: mean of <x, z> + h over choices by potentials h whose mean share is 0.
        """
        return (float(self.shares @ self.squared) + self.points.shape[1]) / 2 - score

    def _there(self, values: Tensor) -> Tensor:
        return values.to(self.points)


def chi_squared(counts: Tensor, shares: Tensor) -> float:
    """Return the chi-squared divergence of how often images are chosen from their shares.

    It is the mean square of the relative error of an image's frequency. Estimated without bias:
    what is due to the finite number of noises is taken off, so it may fall below 0 a little.

    Args:
        counts: ``[K]`` how many noises chose each image; two noises at least.
        shares: ``[K]`` that each shall take.
    """
    noises = counts.sum()
    return float((counts * (counts - 1) / shares).sum() / (noises * (noises - 1)) - 1)


def total_variation(counts: Tensor, shares: Tensor) -> float:
    """Return the share of the noises that would have to choose otherwise for equal shares.

    Chance is part of it: n noises for each image give about 0.4 / sqrt(n).
    """
    return float((counts / counts.sum() - shares).abs().sum() / 2)
