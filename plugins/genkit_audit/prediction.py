"""What the statistics of a coupling predict of a start of sampling."""

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
        tolerance: loss of spread up to which a start counts as safe.
    """

    sigma_max: float
    tolerance: float


@dataclass(frozen=True)
class Prediction:
    """What a start alone does to the samples of the linear denoiser.

    Attributes:
        ratios: standard deviations of samples over the images', along each direction.
        worst: the ratio that is farthest from 1; 1 where the images do not vary.
        frechet: Fréchet distance over pixels.
        lowest_sigma_max: noise level from which on the start is safe.
    """

    ratios: tuple[float, ...]
    worst: float
    frechet: float
    lowest_sigma_max: float

    @classmethod
    def of(cls, found: CouplingStatistics, start: StartLimits, known: ResolvedStart) -> Prediction:
        """Predict, for a start that is corrected as often as ``known`` says."""
        corrections = CORRECTIONS[known]
        ratios = found.spread_of_samples(start.sigma_max, corrections)
        return cls(
            ratios,
            max(ratios, key=lambda ratio: abs(ratio - 1), default=1.0),
            found.frechet_of_start(start.sigma_max, corrections),
            found.lowest_sigma_max(corrections, tolerance=start.tolerance),
        )
