"""The metric ``spread``: standard deviation of samples, which guidance and too few steps reduce."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.interfaces import Context, Subject
from genkit.parts.principal import Directions
from genkit.settings import setting
from genkit.types import Curve, Measurement
from genkit_metrics.over_features import FeatureMetric, require_count, size_of


@dataclass(frozen=True, kw_only=True)
class Spread(FeatureMetric):
    """Ratio of the standard deviations of samples and data along principal directions of the data.

    The score is the mean ratio over the directions. 1 is best; samples with lower scores vary too
    little. The curve shows the ratio along each direction, in order of decreasing variance of the
    data.
    """

    source = "genkit's digits study; principal component analysis of the data"
    min_samples = 2
    accepts_statistics = True

    directions: int = setting(
        16,
        doc="maximum number of principal directions of the data",
        at_least=1,
    )

    @property
    def scores(self) -> tuple[str, ...]:
        return (f"spread_{self.extractor.label}",)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real = subject.features.statistics(self.extractor)
        fake = subject.features.of_samples(self.extractor)
        require_count(fake, self.min_samples, "samples")
        (name,) = self.scores
        ratios = context.world.on_main(lambda: spread(fake, real, self.directions))
        curve = Curve(
            tuple(map(float, range(1, len(ratios) + 1))),
            tuple(ratios),
            "principal direction",
            "standard deviation of samples / standard deviation of data",
        )
        mean = sum(ratios) / len(ratios)
        return Measurement({name: mean}, curves={name: curve}, facts=size_of(real))


def spread(samples: Tensor, data: Statistics, directions: int) -> list[float]:
    """Return the ratio of the standard deviations of samples and data along each direction.

    Args:
        samples: features of the samples, ``[M, F]``.
        data: statistics of the features of the data.
        directions: maximum number of leading principal directions of the data.

    Raises:
        DataError: the numbers of features differ, or the data does not vary.
    """
    size = len(data.mean)
    if samples.shape[1] != size:
        raise DataError(
            "samples and data must have the same number of features, got "
            f"{samples.shape[1]} and {size}; compute both with the same extractor",
            Code.WRONG_SHAPE,
        )
    leading = Directions.of_covariance(data.mean, data.covariance, directions)
    if not len(leading.deviations):
        raise DataError(
            "the data must vary, got items that are all equal; remove the metric", Code.CONFLICT
        )
    return (leading.project(samples).std(dim=0) / leading.deviations).tolist()
