"""Predict the effect of a start of sampling from the statistics of a coupling."""

from __future__ import annotations

from dataclasses import dataclass

from genkit.artifacts import CouplingStatistics
from genkit.start import CORRECTIONS
from genkit.types import ResolvedStart


@dataclass(frozen=True)
class StartLimits:
    """Criteria of a start.

    Attributes:
        sigma_max: noise level of the start.
        tolerance: relative error of the samples' standard deviation up to which a start is safe.
    """

    sigma_max: float
    tolerance: float


@dataclass(frozen=True)
class Prediction:
    """Effect of a start alone on the samples of the optimal linear denoiser.

    Attributes:
        ratios: standard deviations of the samples over those of the images, along each direction.
        worst: ratio that deviates most from 1; 1 if the images do not vary.
        frechet: Fréchet distance over pixels.
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
        """Predict the effect of a start, given its name."""
        corrections = CORRECTIONS[name]
        ratios = statistics.spread_of_samples(start.sigma_max, corrections)
        return cls(
            ratios,
            max(ratios, key=lambda ratio: abs(ratio - 1), default=1.0),
            statistics.frechet_of_start(start.sigma_max, corrections),
            statistics.lowest_sigma_max(corrections, tolerance=start.tolerance),
        )
