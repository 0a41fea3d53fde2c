"""Settings shared by stages and a callback: the metrics, and the reference for the samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from genkit.artifacts.statistics import load_statistics, mismatch
from genkit.blame import require_method
from genkit.designs import outermost, references
from genkit.errors import Code, DataError, PluginError, Problem
from genkit.features import DatasetReference, Extractors, Reference, StatisticsReference
from genkit.files import expand_user
from genkit.interfaces import BoundMetric, Component, Dataset, Design, Extractor, Inputs, Metric
from genkit.parts.no_stages import NoStages
from genkit.settings import FilePath, setting
from genkit.tensors import file_digest
from genkit_stages.metric_checks import data_problems, item_problems, metric_problems


@dataclass(frozen=True, kw_only=True)
class Comparing(Component):
    """Compare samples with real items, or with statistics of their features."""

    data: Dataset | None = setting(
        None, doc="real items to compare with", inherit="data", unless="statistics"
    )
    statistics: FilePath | None = setting(
        None,
        doc="statistics file written by `genkit stats`, EDM or EDM2; used instead of data",
    )
    metrics: tuple[Metric, ...] = setting(doc="metrics to compute")

    def version(self) -> str:
        return "" if self.statistics is None else file_digest(expand_user(self.statistics))

    def comparison_problems(
        self,
        denoiser: Design | None,
        networks: Mapping[str, Design],
        varied: Collection[str] = (),
    ) -> Iterator[Problem]:
        """Yield the problems of reference and metrics that do not depend on the number of samples.

        Args:
            denoiser: design of the denoiser that draws the samples; None if unknown.
            networks: designs of the networks that earlier stages write, keyed by stage id.
            varied: column names of the settings that a sweep varies.

        Raises:
            DataError: the data is missing or corrupt.
        """
        yield from metric_problems(self.metrics, denoiser, varied)
        if self.statistics is None:
            yield from data_problems(self.metrics, self.data, denoiser, networks)
            return
        yield from self._statistics_problems(self.statistics)
        if denoiser is not None:
            yield from item_problems(self.metrics, denoiser.spec, networks)

    def _statistics_problems(self, file: str) -> Iterator[Problem]:
        if self.data is not None:
            reason = "must not be combined with data, got both"
            yield Problem(("statistics",), reason, "remove one of the two")
        for index, metric in enumerate(self.metrics):
            if not metric.accepts_statistics:
                reason = "requires the items of the data, got a statistics file"
                yield Problem(("metrics", index), reason, "set data instead of statistics")
        try:
            statistics = load_statistics(expand_user(file))
        except DataError as error:
            yield from (mistake.problem.under("statistics") for mistake in error.mistakes)
            return
        for index, metric in enumerate(self.metrics):
            for key, extractor in _compared(metric):
                if reason := mismatch(statistics, extractor.frechet, _find_identity(extractor)):
                    hint = "choose the extractor of the file, or create a file with `genkit stats`"
                    yield Problem(("metrics", index, *key), reason, hint, Code.WRONG_KIND)

    def reference(self, extractors: Extractors) -> Reference:
        """Load the reference that the samples are compared with.

        Raises:
            DataError: the reference is missing, corrupt, or belongs to a different extractor.
        """
        if self.statistics is None:
            if self.data is None:  # reported by `comparison_problems`
                raise DataError("data or statistics must be set, got neither")
            return DatasetReference(self.data, extractors)
        reference = StatisticsReference(expand_user(self.statistics), extractors)
        # Fail here rather than hours later, when the first samples are scored.
        for _, extractor in (pair for metric in self.metrics for pair in _compared(metric)):
            reference.statistics(extractor)
        return reference

    def bound_metrics(self, inputs: Inputs) -> list[tuple[Metric, BoundMetric]]:
        """Return each metric with the result of its ``bind``."""
        return [(m, require_method(m, m.bind(inputs), "measure")) for m in self.metrics]


def _compared(metric: Metric) -> Sequence[tuple[tuple[str | int, ...], Extractor]]:
    """Return each extractor whose reference features a metric uses, with its key path."""
    return list(outermost(metric, Extractor)) if metric.min_reference else []


def _find_identity(extractor: Extractor) -> str | None:
    """Return the identity of an extractor before a run; None if a stage trains its network."""
    if any(references(extractor)):
        return None
    with suppress(DataError, PluginError):  # reported by the `check` of the extractor
        return extractor.identity(NoStages())
    return None
