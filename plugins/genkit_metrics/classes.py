"""Metrics of the predictions of a classifier for samples."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from genkit.artifacts.scores import MEASURED
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import Context, Extractor, Stages, Subject
from genkit.random import seeded
from genkit.settings import setting
from genkit.types import Curve, Measurement
from genkit_metrics.library import torchmetrics_image
from genkit_metrics.over_features import FeatureMetric, require_count, require_labels

SPLITS, SEED = 10, 0
"""Number of splits of the inception score, as published, and seed with which samples are split."""


@dataclass(frozen=True, kw_only=True)
class LogitMetric(FeatureMetric):
    """Base class of metrics that are computed from the logits of a classifier."""

    accepts_statistics = True
    min_reference = 0  # no reference is used

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if not self.extractor.classifies:
            yield Problem(
                ("extractor",),
                f"must be a classifier, got {self.extractor.label}, which has no logits",
                'write { use = "classifier", file = "..." }',
            )

    def logits(self, subject: Subject) -> Tensor:
        """Return the logits ``[M, classes]`` of the samples in float64.

        Raises:
            DataError: the extractor has no logits, or there are too few samples.
        """
        fake = subject.features.of_samples(self.extractor)
        require_count(fake, self.min_samples, "samples")
        return subject.features.logits(self.extractor, fake).double()


@dataclass(frozen=True, kw_only=True)
class InceptionScore(LogitMetric):
    """Exponential of the mutual information of samples and predicted classes; higher is better.

    The score is 1 if all samples have the same prediction, and at most the number of classes. The
    samples are not compared with data.
    """

    source = "Salimans et al., arXiv 1606.03498, section 4"
    higher_is_better = True
    min_samples = SPLITS**2  # with fewer samples, torchmetrics may use fewer splits

    extractor: Extractor = setting(
        doc="classifier; published scores use Inception", use={"use": "inception"}
    )

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.named("inception_score"),)

    def measure(self, subject: Subject, context: Context) -> Measurement:
        logits = self.logits(subject)
        (name,) = self.scores
        mean, deviation = context.world.on_main(lambda: inception_score(logits))
        facts = {"splits": f"{SPLITS}, seed {SEED}", f"{MEASURED}splits_std": f"{deviation:.3g}"}
        return Measurement({name: mean}, facts=facts)


def inception_score(logits: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the score over splits of logits ``[N, classes]``."""
    score = torchmetrics_image("inception").InceptionScore
    # torchmetrics warns that it stores the logits, and it shuffles with the global generator.
    with warnings.catch_warnings(action="ignore"), seeded(SEED):
        # Only rank 0 calls this, with all logits. A synchronization would wait for other ranks.
        metric = score(torch.nn.Identity(), splits=SPLITS, sync_on_compute=False)
        metric.update(logits)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


@dataclass(frozen=True, kw_only=True)
class ClassAgreement(LogitMetric):
    """Share of conditional samples that a classifier assigns to the requested class; 1 is best.

    Compare the score with the accuracy of the classifier on real images, which is below 1.
    """

    source = "the reverse of the classification accuracy of Ravuri and Vinyals, arXiv 1905.10887"
    higher_is_better = True
    requires_labels = True

    extractor: Extractor = setting(doc="classifier trained on the classes of the data")

    @property
    def scores(self) -> tuple[str, ...]:
        return (self.named("class_agreement"),)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from super().check(earlier)
        if self.extractor.label == "inception":
            yield Problem(
                ("extractor",),
                "must be a classifier of the classes of the data, got Inception, which has 1,008 "
                "different classes",
                "write a classifier that was trained on this data",
            )

    def measure(self, subject: Subject, context: Context) -> Measurement:
        labels = require_labels(subject.samples, "samples")
        logits = self.logits(subject)
        if int(labels.max()) >= logits.shape[1]:
            raise DataError(
                f"the classifier must have all classes of the samples, got {logits.shape[1]} "
                f"classes and samples of class {int(labels.max())}; use a classifier that was "
                "trained on this data",
                Code.CONFLICT,
            )
        (name,) = self.scores
        correct = (logits.argmax(1) == labels).double()
        classes = torch.unique(labels).tolist()
        shares = [float(correct[labels == number].mean()) for number in classes]
        curve = Curve(tuple(map(float, classes)), tuple(shares), "class", "share")
        return Measurement({name: float(correct.mean())}, curves={name: curve})
