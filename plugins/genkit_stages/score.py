"""The callback score: metrics of few samples while a denoiser is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from genkit.blame import forbid_changes
from genkit.errors import DataError, Problem
from genkit.features import Extractors, Reference, StageFeatures
from genkit.interfaces import BoundMetric, Context, Design, Metric, Subject, TrainingState
from genkit.settings import setting
from genkit.tensors import as_stored
from genkit.types import Measurement
from genkit_stages.comparing import Comparing
from genkit_stages.drawing import Drawing
from genkit_stages.metric_checks import count_problems
from genkit_stages.scores import checked


@dataclass(frozen=True, kw_only=True)
class Score(Drawing, Comparing):
    """Scores of samples from the averaged weights.

    Scores of few samples are biased: compare them along one training, and with no others.
    """

    count: int = setting(1000, doc="number of samples", at_least=1)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(score for metric in self.metrics for score in metric.scores)

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        yield from super().check_training(design, networks)
        yield from count_problems(self.metrics, self.count)
        with suppress(DataError):  # reported where the data is named
            yield from self.comparison_problems(design, networks)

    def bind(self, context: Context) -> BoundScore:
        extractors = Extractors(context)
        metrics = self.bound_metrics(context)
        return BoundScore(self, self.reference(extractors), extractors, metrics)


@dataclass(frozen=True)
class BoundScore:
    """Measures samples of a network under training.

    Attributes:
        settings: settings of the callback.
        reference: what the samples are compared with; its features are computed once.
        extractors: extractors of the callback.
        metrics: metrics as the recipe has them, and what their ``bind`` returned.
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
        drawn = self.settings.drawn(training.averaged, context)
        samples = drawn.with_data(as_stored(drawn.data, "sample"))
        features = StageFeatures(self.extractors, samples.data, self.reference)
        real = self.reference.batch
        averaged = training.averaged
        subject = Subject(samples, real, averaged.module, features, averaged.coupling)
        scores: dict[str, float] = {}
        pictures: dict[str, bytes] = {}
        warnings: list[str] = []
        for metric, bound in self.metrics:
            with forbid_changes(metric, samples=samples, reference=real):
                found = checked(metric, bound.measure(subject, context))
            scores |= found.scores
            pictures |= found.pictures
            warnings += found.warnings
        return Measurement(scores, pictures=pictures, warnings=warnings)
