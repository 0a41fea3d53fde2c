"""Tests of the assigned noise: is it still N(0, I), over all pairs and within each class?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from genkit.parts.principal import Directions, rows

LEADING = 16
"""Directions of the images along which kurtosis and classes are tested: pairs act most on these,
and in thousands of dimensions chance would hide it."""

IMPROBABLE = 1e-4
"""Probability, for N(0, I), of a result as far from it in any of the tests, below which the noise
counts as something else."""


@dataclass(frozen=True)
class Gaussianity:
    """Moments of noise, each with its distance from that of N(0, I) in standard errors.

    Attributes:
        count: effective number of noise samples, on which the standard errors depend.
        mean: mean over all values.
        variance: variance over all values.
        worst_mean: mean of the dimension in which it is farthest from 0.
        kurtosis: excess kurtosis along the leading direction in which it is farthest from 0.
        errors: distance of each of these four, by name, in standard errors.
        limits: distances that N(0, I) exceeds with a probability of ``IMPROBABLE``, of the largest
            of as many as were compared.
    """

    count: float
    mean: float
    variance: float
    worst_mean: float
    kurtosis: float
    errors: dict[str, float]
    limits: dict[str, float]

    @property
    def violations(self) -> list[str]:
        """Names of the moments that are improbable for N(0, I)."""
        return [name for name, error in self.errors.items() if abs(error) > self.limits[name]]


def gaussianity(noise: Tensor, directions: Directions, count: float) -> Gaussianity:
    """Test noise for N(0, I).

    Args:
        noise: ``[N, F]`` assigned noise.
        directions: principal directions of the images.
        count: effective number of noise samples, at most N.
    """
    number, width = noise.shape
    sums = torch.zeros(width, dtype=torch.float64)
    square = 0.0
    for part in rows(noise):
        wide = part.double()
        sums += wide.sum(0)
        square += float(wide.square().sum())
    means = sums / number
    mean = float(means.mean())
    variance = square / (number * width) - mean**2
    worst = float(means[means.abs().argmax()])
    along = _leading(noise, directions)
    along = along - along.mean(0)
    kurtosis = along.pow(4).mean(0) / along.square().mean(0).square() - 3
    extreme = float(kurtosis[kurtosis.abs().argmax()]) if len(kurtosis) else 0.0
    # Variances for N(0, 1): of a square 2, of a sample's excess kurtosis 24 / N.
    errors = {
        "mean": mean * math.sqrt(count * width),
        "variance": (variance - 1) * math.sqrt(count * width / 2),
        "worst_mean": worst * math.sqrt(count),
        "kurtosis": extreme * math.sqrt(count / 24),
    }
    compared = {"mean": 1, "variance": 1, "worst_mean": width, "kurtosis": max(1, len(kurtosis))}
    limits = {name: _limit(among) for name, among in compared.items()}
    return Gaussianity(count, mean, variance, worst, extreme, errors, limits)


def _leading(noise: Tensor, directions: Directions) -> Tensor:
    """Return the coordinates of noise along the leading directions, ``[N, K]`` float64."""
    axes = directions.axes[:, :LEADING]
    return torch.cat([part.double() @ axes for part in rows(noise)])


def _limit(among: int) -> float:
    """Return what the largest of so many independent |z| exceeds improbably."""
    return -NormalDist().inv_cdf(IMPROBABLE / among / 2)


@dataclass(frozen=True)
class ClassSkew:
    """The class whose mean noise is farthest from 0.

    Attributes:
        label: its index.
        count: number of its pairs.
        length: length of its mean noise along the leading directions; a value of the noise has the
            standard deviation 1.
        error: distance of that length from what N(0, I) has, in standard errors.
        limit: distance that the farthest of all classes exceeds improbably for N(0, I).
    """

    label: int
    count: int
    length: float
    error: float
    limit: float


def class_skew(
    noise: Tensor, labels: Tensor, directions: Directions, share: float
) -> ClassSkew | None:
    """Return the class that is skewed most, along the leading directions of the images.

    Args:
        noise: ``[N, F]`` assigned noise.
        labels: ``[N]`` classes.
        directions: principal directions of the images.
        share: effective number of noise samples over N, at most 1.

    Returns:
        None where the images do not vary.
    """
    along = _leading(noise, directions)
    width = along.shape[1]
    if not width:
        return None
    found = []
    classes = torch.unique(labels).tolist()
    for label in classes:
        members = along[labels == label]
        length = float(members.mean(0).norm())
        # N |mean|^2 has a chi-square distribution, and its cube root nearly a normal one.
        scaled = (len(members) * share * length**2 / width) ** (1 / 3)
        variance = 2 / (9 * width)
        error = (scaled - (1 - variance)) / math.sqrt(variance)
        found.append(ClassSkew(label, len(members), length, error, _limit(len(classes))))
    return max(found, key=lambda one: one.error)
