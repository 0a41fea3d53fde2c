"""Test whether assigned noise has the distribution N(0, I), in all pairs and within each class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from genkit.parts.principal import Directions, rows

LEADING = 16
"""Number of principal directions of the images along which kurtosis and classes are tested.

A coupler changes the noise most along the leading directions. A test over thousands of dimensions
would have less power. Chosen, not tuned.
"""

IMPROBABLE = 1e-4
"""Significance level of each test, after the correction for the number of compared values. Chosen,
not tuned: it is so small that false alarms are unlikely even in the tests of many stages."""


@dataclass(frozen=True)
class Gaussianity:
    """Moments of noise, and their deviations from the moments of N(0, I).

    Attributes:
        count: effective number of noise samples, on which the standard errors depend.
        mean: mean of all values.
        variance: variance of all values.
        worst_mean: mean of the dimension whose mean deviates most from 0.
        kurtosis: excess kurtosis along the leading direction where it deviates most from 0.
        errors: dict from the name of each of these four moments to its deviation in standard
            errors.
        limits: dict from the name of each moment to the deviation in standard errors that N(0, I)
            exceeds with the probability ``IMPROBABLE``.
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
        """Names of the moments whose deviations are above their limits."""
        return [name for name, error in self.errors.items() if abs(error) > self.limits[name]]


def gaussianity(noise: Tensor, directions: Directions, count: float) -> Gaussianity:
    """Test whether noise has the distribution N(0, I).

    Args:
        noise: assigned noise, ``[N, F]``.
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
    # For N(0, 1), a square has the variance 2, and the excess kurtosis of N draws 24 / N.
    errors = {
        "mean": mean * math.sqrt(count * width),
        "variance": (variance - 1) * math.sqrt(count * width / 2),
        "worst_mean": worst * math.sqrt(count),
        "kurtosis": extreme * math.sqrt(count / 24),
    }
    compared = {"mean": 1, "variance": 1, "worst_mean": width, "kurtosis": max(1, len(kurtosis))}
    limits = {name: _limit(values) for name, values in compared.items()}
    return Gaussianity(count, mean, variance, worst, extreme, errors, limits)


def _leading(noise: Tensor, directions: Directions) -> Tensor:
    """Return the coordinates of noise along the leading directions, ``[N, K]`` float64."""
    axes = directions.axes[:, :LEADING]
    return torch.cat([part.double() @ axes for part in rows(noise)])


def _limit(count: int) -> float:
    """Return the threshold that the maximum of |z| exceeds with the probability ``IMPROBABLE``.

    Args:
        count: number of standard normal variates z over which the maximum is taken.
    """
    return -NormalDist().inv_cdf(IMPROBABLE / count / 2)  # Bonferroni's correction


@dataclass(frozen=True)
class ClassSkew:
    """The class whose mean noise deviates most from 0.

    Attributes:
        label: index of the class.
        count: number of pairs of the class.
        length: norm of the mean noise of the class along the leading directions, in standard
            deviations of the noise.
        error: deviation of the norm from its value for N(0, I), in standard errors.
        limit: deviation that the maximum over all classes exceeds with the probability
            ``IMPROBABLE`` for N(0, I).
    """

    label: int
    count: int
    length: float
    error: float
    limit: float


def class_skew(
    noise: Tensor, labels: Tensor, directions: Directions, share: float
) -> ClassSkew | None:
    """Return the class whose mean noise deviates most from 0 along the leading directions.

    Args:
        noise: assigned noise, ``[N, F]``.
        labels: class indices, ``[N]``.
        directions: principal directions of the images.
        share: effective number of noise samples divided by N, at most 1.

    Returns:
        The class with its deviation; None if the images do not vary.
    """
    along = _leading(noise, directions)
    width = along.shape[1]
    if not width:
        return None
    skews = []
    classes = torch.unique(labels).tolist()
    for label in classes:
        members = along[labels == label]
        length = float(members.mean(0).norm())
        # N |mean|^2 has a chi-square distribution, whose cube root is nearly normal (Wilson and
        # Hilferty 1931).
        scaled = (len(members) * share * length**2 / width) ** (1 / 3)
        variance = 2 / (9 * width)
        error = (scaled - (1 - variance)) / math.sqrt(variance)
        skews.append(ClassSkew(label, len(members), length, error, _limit(len(classes))))
    return max(skews, key=lambda skew: skew.error)
