"""The semidual problem of one group of images.

If image i should get the share b_i of all noise, the potential h maximizes the concave function

    sum_i b_i h_i - E max_i (<x_i, z> + h_i),    z ~ N(0, I).

The derivative with respect to h_i is b_i minus the current share of image i. So an ascent step
decreases the potential of an image that is chosen too often (Genevay et al., arXiv 1605.08527;
arXiv 2509.25519, section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genkit_semidiscrete.search import margin, search

_CURVATURES = 13
"""Number of initial potentials to try; chosen, not tuned."""


@dataclass(frozen=True)
class Cells:
    """A partition of noise space into one cell per image.

    Attributes:
        points: ``[K, D]`` float32 distinct images, on the device of the computation.
        shares: ``[K]`` share of all noise that each image should get, with sum 1; float64 on the
            CPU.
    """

    points: Tensor
    shares: Tensor

    @cached_property
    def squared(self) -> Tensor:
        """Squared norms of the images, ``[K]`` float64 on the CPU."""
        length: Tensor = torch.linalg.vector_norm(self.points, dim=1)
        return length.cpu().double().square()

    def choose(self, potential: Tensor, noise: Tensor) -> tuple[Tensor, float]:
        """Assign noise samples to images.

        Args:
            potential: ``[K]`` potential, float64 on the CPU as in all methods.
            noise: ``[M, D]`` float32 noise samples, on the device of the images.

        Returns:
            Number of noise samples of each image, ``[K]`` float64; and the sum of their scores
            <x, z> + h.
        """
        index, score = search(self.points, self._like_points(potential), noise)
        counts = torch.bincount(index.cpu(), minlength=len(self.points)).double()
        return counts, float(score.cpu().double().sum())

    def start(self, noise: Tensor) -> Tensor:
        """Return the initial potential.

        It is -c |x_i - mean|^2 / 2, which is exact for infinitely many images from an isotropic
        normal distribution. The factor c is the value with the lowest marginal error among several,
        measured on noise samples ``[M, D]``. All potentials have mean 0, weighted by the shares.
        """
        if len(self.points) == 1:
            return torch.zeros_like(self.shares)
        mean = self._like_points(self.shares) @ self.points
        across = (self.points @ mean).cpu().double()
        spread = self.squared - 2 * across + float(mean.square().sum())
        mean_spread = float(self.shares @ spread)
        candidates = [
            2 ** (k / 2 - 2) / math.sqrt(mean_spread) * (mean_spread - spread) / 2
            for k in range(_CURVATURES)
        ]
        return min(candidates, key=lambda h: chi_squared(self.choose(h, noise)[0], self.shares))

    def margin(self, potential: Tensor, noise: Tensor) -> float:
        """Return the unit of step sizes: the mean difference between the two highest scores."""
        single = len(self.points) == 1
        return 0.0 if single else margin(self.points, self._like_points(potential), noise)

    def ascend(self, potential: Tensor, counts: Tensor, size: float) -> Tensor:
        """Return the potential after one step.

        Args:
            potential: ``[K]`` potential with which the images were chosen.
            counts: ``[K]`` number of noise samples that chose each image.
            size: decrease of the potential of an image that is chosen twice as often as it should.
        """
        noises = counts.sum()
        # Limited, because with fewer noise samples than images, a single choice by chance would
        # change a potential too much.
        damping = min(1.0, float(noises) / len(counts))
        new = potential + size * damping * (1 - counts / noises / self.shares)
        return new - self.shares @ new

    def objective(self, score: float) -> float:
        """Return the value of the semidual: a lower bound of E|x - z|^2 / 2 up to sampling errors.

        Args:
            score: mean of <x, z> + h over choices, with potentials h of weighted mean 0.
        """
        return (float(self.shares @ self.squared) + self.points.shape[1]) / 2 - score

    def _like_points(self, values: Tensor) -> Tensor:
        return values.to(self.points)


def chi_squared(counts: Tensor, shares: Tensor) -> float:
    """Estimate the chi-squared divergence of the images' frequencies from their shares.

    It is the mean squared relative error of the frequencies. The estimate is unbiased: the part
    due to the finite number of noise samples is subtracted, so it may be slightly negative.

    Args:
        counts: ``[K]`` number of noise samples that chose each image, at least 2 in total.
        shares: ``[K]`` target share of each image.
    """
    noises = counts.sum()
    return float((counts * (counts - 1) / shares).sum() / (noises * (noises - 1)) - 1)


def total_variation(counts: Tensor, shares: Tensor) -> float:
    """Return the share of noise samples that would have to change images for exact target shares.

    It includes statistical fluctuations, about 0.4 / sqrt(n) for n noise samples per image.
    """
    return float((counts / counts.sum() - shares).abs().sum() / 2)
