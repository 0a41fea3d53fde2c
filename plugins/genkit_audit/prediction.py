"""Predict the effect of the start of sampling on samples, from the statistics of a coupling."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.artifacts import CouplingStatistics
from genkit.start import CORRECTIONS
from genkit.types import ResolvedStart


@dataclass(frozen=True)
class StartLimits:
    """Noise level of a start, and criterion of a safe start.

    Attributes:
        sigma_max: noise level of the start.
        tolerance: maximum relative error of the standard deviation of samples with a safe start.
    """

    sigma_max: float
    tolerance: float


@dataclass(frozen=True)
class Prediction:
    """Effect of a start on samples, for the optimal linear denoiser and exact integration.

    Attributes:
        ratios: ratio of the standard deviations of samples and images along each direction.
        worst: ratio that deviates most from 1; 1 if the images do not vary.
        frechet: Fréchet distance between samples and images in pixel space.
        lowest_sigma_max: minimum noise level at which the start is safe.
    """

    ratios: tuple[float, ...]
    worst: float
    frechet: float
    lowest_sigma_max: float

    @classmethod
    def of(
        cls, statistics: CouplingStatistics, start: StartLimits, name: ResolvedStart
    ) -> Prediction:
        """Return the effect of the start ``name``."""
        corrections = CORRECTIONS[name]
        ratios = statistics.spread_of_samples(start.sigma_max, corrections)
        return cls(
            ratios,
            max(ratios, key=lambda ratio: abs(ratio - 1), default=1.0),
            statistics.frechet_of_start(start.sigma_max, corrections),
            statistics.lowest_sigma_max(corrections, tolerance=start.tolerance),
        )
