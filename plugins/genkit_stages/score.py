"""The callback ``score``, which computes metrics of few samples during training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from genkit.errors import DataError, Problem
from genkit.features import Extractors, Reference, StageFeatures
from genkit.interfaces import BoundMetric, Context, Design, Metric, Subject, TrainingState
from genkit.settings import setting
from genkit.tensors import as_stored
from genkit.types import Measurement
from genkit_stages.comparing import Comparing
from genkit_stages.drawing import Drawing
from genkit_stages.measuring import measure
from genkit_stages.metric_checks import count_problems


@dataclass(frozen=True, kw_only=True)
class Score(Drawing, Comparing):
    """Score samples of the averaged weights during training.

    Scores of few samples are biased: compare them only within one training run.
    """

    count: int = setting(1000, doc="number of samples", at_least=1)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(score for metric in self.metrics for score in metric.scores)

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        yield from super().check_training(design, networks)
        yield from count_problems(self.metrics, self.count)
        with suppress(DataError):  # reported by the check of the data
            yield from self.comparison_problems(design, networks)

    def bind(self, context: Context) -> BoundScore:
        extractors = Extractors(context)
        metrics = self.bound_metrics(context)
        return BoundScore(self, self.reference(extractors), extractors, metrics)


@dataclass(frozen=True)
class BoundScore:
    """Measure samples of a network in training.

    Attributes:
        settings: settings of the callback.
        reference: reference to compare samples with; its features are computed once.
        extractors: extractors of the callback.
        metrics: metrics of the recipe, each with the result of its ``bind``.
    """

    settings: Score
    reference: Reference
    extractors: Extractors
    metrics: Sequence[tuple[Metric, BoundMetric]]

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return the scores of all metrics.

        Raises:
            DataError: a sample or a score is not finite, or the result of a metric is invalid.
        """
        batch = self.settings.draw(training.averaged, context)
        samples = batch.with_data(as_stored(batch.data, "sample"))
        features = StageFeatures(self.extractors, samples.data, self.reference)
        real = self.reference.batch
        averaged = training.averaged
        subject = Subject(samples, real, averaged.module, features, averaged.coupling)
        scores: dict[str, float] = {}
        pictures: dict[str, bytes] = {}
        warnings: list[str] = []
        for metric, bound in self.metrics:
            result = measure(metric, bound, subject, context)
            scores |= result.scores
            pictures |= result.pictures
            warnings += result.warnings
        return Measurement(scores, pictures=pictures, warnings=warnings)
