"""What metrics of features share: extractor, names of scores, and how many items they require."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.interfaces import Extractor, Metric, Subject
from genkit.settings import setting
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class FeatureMetric(Metric):
    """A score of the features of samples and real items."""

    extractor: Extractor = setting(
        doc="the features in which samples and real items are compared", use={"use": "pixels"}
    )

    @property
    def min_reference(self) -> int:
        return self.min_samples

    def named(self, score: str) -> str:
        """Return the name of a score: alone for Inception, else followed by that of the features.

        The published numbers of these metrics are those over Inception.
        """
        label = self.extractor.label
        return score if label == "inception" else f"{score}_{label}"

    def features(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """Return the features ``[N, F]`` of the reference and ``[M, F]`` of the samples.

        Raises:
            DataError: there are fewer than :attr:`min_samples` or :attr:`min_reference`.
        """
        real = subject.features.of_reference(self.extractor)
        fake = subject.features.of_samples(self.extractor)
        require_count(fake, self.min_samples, "samples")
        require_count(real, self.min_reference, "reference items")
        return real, fake


def size_of(statistics: Statistics) -> dict[str, str]:
    """Return the facts of the size of a reference: its features, and its items where known."""
    items = {} if statistics.count is None else {"reference": str(statistics.count)}
    return {"features": str(len(statistics.mean)), **items}


def require_count(items: Tensor, minimum: int, what: str) -> None:
    """Raise DataError unless there are enough items."""
    if len(items) < minimum:
        raise DataError(
            f"{what} must be at least {minimum:,}, got {len(items):,}; use more, or leave the "
            "metric out",
            Code.WRONG_LENGTH,
        )


def require_labels(items: Batch | None, what: str) -> Tensor:
    """Return the labels of items, or raise DataError where there are none."""
    if items is None or items.labels is None:
        raise DataError(
            f"{what} must have labels, got none; use labeled data and a denoiser with classes, or "
            "leave the metric out",
            Code.MISSING_ATTRIBUTE,
        )
    return items.labels
