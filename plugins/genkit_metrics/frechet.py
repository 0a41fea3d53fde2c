"""The Fréchet distance between samples and real items in the feature space of an extractor.

Only the distance in the feature space of Inception is the FID, and its score is named ``fid``.
Scores of other extractors are comparable only with scores of the same extractor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from genkit.artifacts.statistics import Statistics
from genkit.interfaces import Context, Subject
from genkit.tensors import digest
from genkit.types import Curve, Measurement
from genkit_metrics.gaussians import expected_bias, frechet_distance
from genkit_metrics.over_features import FeatureMetric, require_count, require_labels, size_of

MIN_UNBIASED = 2048
"""Number of samples below which a warning of bias is logged: the number of Inception features."""


@dataclass(frozen=True, kw_only=True)
class Frechet(FeatureMetric):
    """Fréchet distance between the means and covariances of features; 0 is best."""

    source = "Heusel et al., arXiv 1706.08500, eq. 6"
    quantity = "Fréchet distance"
    higher_is_better = False
    min_samples = 2  # the minimum for a covariance
    accepts_statistics = True

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.extractor.frechet,)

    def words(self, score: str) -> str:
        return "FID" if score == "fid" else super().words(score)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        (name,) = self.scores
        real = subject.features.statistics(self.extractor)
        fake = subject.features.of_samples(self.extractor)
        require_count(fake, self.min_samples, "samples")

        def distance() -> Measurement:
            score = frechet_distance(real, Statistics.of(fake))
            biases = [expected_bias(real, len(fake))] if len(fake) < MIN_UNBIASED else []
            warnings = _warnings(name, len(fake), biases)
            return Measurement({name: score}, facts=size_of(real), warnings=warnings)

        return context.world.on_main(distance)


@dataclass(frozen=True, kw_only=True)
class FrechetByClass(FeatureMetric):
    """Fréchet distance within each class: mean, maximum, and a curve over the classes.

    The distance over all classes together may be low although the samples of one class are bad or
    missing.
    """

    source = "Heusel et al., arXiv 1706.08500, eq. 6, for the items of each class"
    higher_is_better = False
    min_samples = 2
    requires_labels = True

    @property
    def scores(self) -> tuple[str, ...]:
        name = f"{self.extractor.frechet}_by_class"
        return name, f"{name}_max"

    def words(self, score: str) -> str:
        which = "largest" if score.endswith("_max") else "mean"
        return f"{which} Fréchet distance within a class, {self.extractor.label}"

    def measure(self, subject: Subject, context: Context) -> Measurement:
        real, fake = self.features(subject)
        real_labels = require_labels(subject.reference, "reference items")
        labels = require_labels(subject.samples, "samples")
        classes = torch.unique(real_labels).tolist()

        def distances() -> Measurement:
            scores, biases = [], []
            for number in classes:
                of_class = [x[y == number] for x, y in ((real, real_labels), (fake, labels))]
                for items, what in zip(of_class, ("real items", "samples"), strict=True):
                    require_count(items, self.min_samples, f"{what} of class {number}")
                of_real, of_fake = map(Statistics.of, of_class)
                scores.append(frechet_distance(of_real, of_fake))
                if (count := len(of_class[1])) < MIN_UNBIASED:
                    biases.append(expected_bias(of_real, count))
            mean, maximum = self.scores
            x = tuple(map(float, classes))
            curve = Curve(x, tuple(scores), "class", f"Fréchet distance, {self.extractor.label}")
            return Measurement(
                {mean: sum(scores) / len(scores), maximum: max(scores)},
                curves={mean: curve},
                facts={"labels": f"sha256:{digest(real_labels)}"},
                warnings=_warnings(mean, len(fake) // len(classes), biases),
            )

        return context.world.on_main(distances)


def _warnings(score: str, count: int, biases: list[float]) -> list[str]:
    """Return a warning about the mean of the expected biases; no warning if there are none."""
    if not biases:
        return []
    bias = sum(biases) / len(biases)
    return [
        f"{score} of {count:,} samples is about {bias:.2g} higher than that of infinitely many; "
        f"draw at least {MIN_UNBIASED:,}, and compare scores of equal numbers of samples"
    ]
