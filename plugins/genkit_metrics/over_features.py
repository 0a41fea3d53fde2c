"""Base class of metrics that compare features: extractor, score names, minimum numbers of items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError
from genkit.interfaces import Extractor, Metric, Subject
from genkit.settings import setting
from genkit.types import Batch


@dataclass(frozen=True, kw_only=True)
class FeatureMetric(Metric):
    """Compare the features of samples and real items."""

    quantity: ClassVar[str] = ""
    """Name of the scores in words; empty if the names of the scores are words."""

    extractor: Extractor = setting(
        doc="features in which samples and real items are compared", use={"use": "pixels"}
    )

    @property
    def min_reference(self) -> int:
        return self.min_samples

    def named(self, score: str) -> str:
        """Return the name of a score with the label of the extractor appended.

        The label of Inception is not appended, since published scores of these metrics use it.
        """
        label = self.extractor.label
        return score if label == "inception" else f"{score}_{label}"

    def words(self, score: str) -> str:
        label = self.extractor.label
        quantity = self.quantity or super().words(score.removesuffix(f"_{label}"))
        return quantity if label == "inception" else f"{quantity}, {label}"

    def features(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """Return the features of the reference, ``[N, F]``, and of the samples, ``[M, F]``.

        Raises:
            DataError: there are fewer items than :attr:`min_samples` or :attr:`min_reference`.
        """
        real = subject.features.of_reference(self.extractor)
        fake = subject.features.of_samples(self.extractor)
        require_count(fake, self.min_samples, "samples")
        require_count(real, self.min_reference, "reference items")
        return real, fake


def size_of(statistics: Statistics) -> dict[str, str]:
    """Return facts of a reference: the number of features, and the number of items if known."""
    items = {} if statistics.count is None else {"reference": str(statistics.count)}
    return {"features": str(len(statistics.mean)), **items}


def require_count(items: Tensor, minimum: int, what: str) -> None:
    """Raise DataError unless there are at least ``minimum`` items; ``what`` is their name."""
    if len(items) < minimum:
        raise DataError(
            f"the number of {what} must be at least {minimum:,}, got {len(items):,}; use more "
            "items, or remove the metric",
            Code.WRONG_LENGTH,
        )


def require_labels(items: Batch | None, what: str) -> Tensor:
    """Return the labels of items; raise DataError if they have none."""
    if items is None or items.labels is None:
        raise DataError(
            f"{what} must have labels, got none; use labeled data and a class-conditional "
            "denoiser, or remove the metric",
            Code.MISSING_ATTRIBUTE,
        )
    return items.labels
