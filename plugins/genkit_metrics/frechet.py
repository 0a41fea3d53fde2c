"""The Fréchet distance between samples and real items, over the features of an extractor.

|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) for the means and covariances of the features. Only
over Inception features is it the FID, and is called so; scores over other features are comparable
among themselves, and only where the extractor's identity is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.interfaces import Context, Extractor, Metric, Subject
from genkit.settings import setting
from genkit.types import Measurement


@dataclass(frozen=True, kw_only=True)
class Frechet(Metric):
    """Frechet distance of feature means and covariances; 0 is best."""

    source = "Heusel et al., arXiv 1706.08500, eq. 6"
    min_samples = 2  # of which there is a covariance
    accepts_statistics = True

    extractor: Extractor = setting(
        doc="the features in which samples and real items are compared", use={"use": "pixels"}
    )

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.extractor.frechet,)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real = subject.features.statistics(self.extractor)
        fake = Statistics.of(subject.features.of_samples(self.extractor))
        distance = context.world.lead(lambda: frechet_distance(real, fake))
        return Measurement(
            scores={self.extractor.frechet: distance}, facts={"features": str(real.mean.numel())}
        )


def frechet_distance(real: Statistics, fake: Statistics) -> float:
    """Return the Fréchet distance of two Gaussians.

    Raises:
        DataError: the two have another number of features.
    """
    if real.mean.shape != fake.mean.shape:
        raise DataError(
            f"statistics of {real.mean.numel()} features cannot be compared with "
            f"{fake.mean.numel()} features of the samples; name statistics of the same extractor",
            Code.WRONG_SHAPE,
        )
    # The trace of (S1 S2)^(1/2) is the sum of the singular values of R1^T R2 with S = R R^T.
    overlap = torch.linalg.svdvals(_root(real.covariance).T @ _root(fake.covariance)).sum()
    means = (real.mean - fake.mean).square().sum()
    total = real.covariance.trace() + fake.covariance.trace()
    # Rounding takes the distance of equal sets to about -1e-12.
    return max(0.0, float(means + total - 2 * overlap))


def _root(covariance: Tensor) -> Tensor:
    """Return R with R R^T equal to a covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root
