"""Base of the stages evaluate and sweep: their settings and checks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from genkit.artifacts import SamplesRef, Scores
from genkit.artifacts.statistics import load_statistics
from genkit.designs import design_behind, designs, held
from genkit.errors import Code, DataError, Problem
from genkit.features import DatasetItems, Extractors, Reference, StatisticsFile
from genkit.files import expanded
from genkit.interfaces import Context, Dataset, Extractor, Metric, Stage, Stages
from genkit.settings import setting
from genkit.tensors import file_digest
from genkit_stages.metric_checks import (
    count_problems,
    data_problems,
    item_problems,
    metric_problems,
)
from genkit_stages.scores import Scorer


@dataclass(frozen=True, kw_only=True)
class Scoring(Stage):
    """Scores the samples of a stage."""

    output = Scores
    shared = True

    samples: SamplesRef = setting(doc="stage that drew the samples")
    data: Dataset | None = setting(None, doc="the real items to compare with", inherit="data")
    statistics: str | None = setting(
        None,
        doc="file of `genkit stats`, or one that EDM or EDM2 published, in place of data",
    )
    metrics: tuple[Metric, ...] = setting(doc="what to measure")
    sets: int = setting(
        1,
        doc="equal parts of the samples, each scored by itself: a score is the mean, with its "
        "standard deviation and minimum. EDM reports the minimum of 3 sets of 50_000",
        at_least=1,
    )
    tolerance: float | None = setting(
        None,
        doc="score no more sets once the 95 % confidence interval of every score is within this "
        "share of its mean, after 3 sets at least; all sets",
        above=0,
    )

    def version(self) -> str:
        return "" if self.statistics is None else file_digest(expanded(self.statistics))

    def varied(self) -> Collection[str]:
        """Return the columns of the settings that the stage varies, which no score may replace."""
        return ()

    def scoring_problems(self, earlier: Stages) -> Iterator[Problem]:
        """Yield what keeps the samples from being measured, whatever their number is.

        Args:
            earlier: stages above this one by id, among them that of the samples.
        """
        yield from self._metric_problems(earlier)
        if self.tolerance is not None and self.sets < 3:
            reason = f"requires more than 2 sets, got {self.sets}"
            yield Problem(("tolerance",), reason, "write sets = 10, or leave it out")
        # A DataError of these, and of the data below, is reported where the data is named.
        denoiser, networks = design_behind(self.samples, earlier), designs(earlier, earlier)
        if self.statistics is not None:
            yield from self._statistics_problems(self.statistics)
            if denoiser is not None:
                yield from item_problems(self.metrics, denoiser.spec, networks)
            return
        yield from data_problems(self.metrics, self.data, denoiser, networks)

    def _statistics_problems(self, file: str) -> Iterator[Problem]:
        try:
            found = load_statistics(expanded(file))
        except DataError as error:
            yield from (mistake.problem.under("statistics") for mistake in error.mistakes)
            return
        for index, metric in enumerate(self.metrics):
            for key, extractor in held(metric, Extractor):
                if extractor.frechet in {*metric.scores} - found.keys():
                    yield Problem(
                        ("metrics", index, *key),
                        f"must be an extractor whose statistics are in the file, for "
                        f"{', '.join(found)}, got {extractor.frechet}",
                        "write another extractor, or the file of this one with `genkit stats`",
                        Code.WRONG_KIND,
                    )

    def count_problems(self, count: int, where: str) -> Iterator[Problem]:
        """Yield why so many samples cannot be measured.

        Args:
            count: number of samples, of all sets together.
            where: place of the count, for the hints, such as ``in stage samples``.
        """
        if count % self.sets:
            reason = f"must divide the number of samples, {count}, got {self.sets}"
            hint = f"write a count {where} that {self.sets} divides"
            yield Problem(("sets",), reason, hint, Code.OUT_OF_RANGE)
        where += ", for each set" if self.sets > 1 else ""
        yield from count_problems(self.metrics, count // self.sets, where)

    def _metric_problems(self, earlier: Stages) -> Iterator[Problem]:
        stage = earlier[self.samples]
        drawn_by = stage.drawn_by(earlier)
        networks = designs([drawn_by] if drawn_by else [], earlier)
        yield from metric_problems(self.metrics, networks.values(), self.varied())
        for index, metric in enumerate(self.metrics):
            key = ("metrics", index)
            if metric.requires_denoiser and drawn_by is None:
                yield Problem(
                    key,
                    f"calls the denoiser behind the samples, and stage {self.samples} names none",
                    "leave the metric out, or choose a stage that samples a denoiser",
                )
            if self.statistics is not None and not metric.accepts_statistics:
                reason = "requires the items of the data, got a file of statistics"
                yield Problem(key, reason, "write data in place of statistics")

    def scorer(self, context: Context) -> Scorer:
        """Return what measures, with the data and all networks loaded once."""
        extractors = Extractors(context)
        reference: Reference
        if self.statistics is not None:
            reference = StatisticsFile(expanded(self.statistics), extractors)
        elif self.data is not None:
            reference = DatasetItems(self.data, extractors)
        else:  # `check` refuses it
            raise DataError("there is no data to compare with")
        metrics = [(metric, metric.bind(context)) for metric in self.metrics]
        return Scorer(
            context, metrics, reference, extractors, self.sets, self.tolerance, self.varied()
        )
