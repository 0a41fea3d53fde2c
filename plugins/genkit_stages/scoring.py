"""Base class of the stages ``evaluate`` and ``sweep``, with their settings and checks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from genkit.artifacts import SamplesRef, Scores
from genkit.designs import designs
from genkit.errors import Code, Problem
from genkit.features import Extractors
from genkit.interfaces import Context, Stage, Stages
from genkit.settings import setting
from genkit_stages.comparing import Comparing
from genkit_stages.metric_checks import count_problems
from genkit_stages.scores import Scorer


@dataclass(frozen=True, kw_only=True)
class Scoring(Stage, Comparing):
    """Score the samples of a stage."""

    output = Scores
    shared = True

    samples: SamplesRef = setting(doc="stage that drew the samples")
    sets: int = setting(
        1,
        doc="number of equal parts of the samples, each scored separately; the mean, standard "
        "deviation and minimum over the sets are reported. EDM reports the minimum of 3 sets of "
        "50_000 samples",
        at_least=1,
    )
    tolerance: float | None = setting(
        None,
        doc="maximum half width of every score's 95 % confidence interval, relative to the score: "
        "once it is reached, after at least 3 sets, no more are scored; default: all are scored",
        above=0,
    )

    def varied(self) -> Collection[str]:
        """Return the column names of the varied settings; no score may have one of these names."""
        return ()

    def scoring_problems(self, earlier: Stages) -> Iterator[Problem]:
        """Yield the problems of samples and metrics that do not depend on the number of samples.

        Args:
            earlier: earlier stages, keyed by id, including the stage that draws the samples.
        """
        drawn_by = earlier[self.samples].drawn_by(earlier)
        for index, metric in enumerate(self.metrics):
            if metric.requires_denoiser and drawn_by is None:
                yield Problem(
                    ("metrics", index),
                    f"requires the denoiser of the samples, but stage {self.samples} has none",
                    "remove the metric, or name a stage that samples a denoiser",
                )
        if self.tolerance is not None and self.sets < 3:
            reason = f"requires more than 2 sets, got {self.sets}"
            yield Problem(("tolerance",), reason, "write sets = 10, or remove tolerance")
        networks = designs(earlier, earlier)
        yield from self.comparison_problems(networks.get(drawn_by or ""), networks, self.varied())

    def count_problems(self, count: int, where: str) -> Iterator[Problem]:
        """Yield a problem for each reason why this number of samples cannot be measured.

        Args:
            count: number of samples of all sets together.
            where: place of the setting ``count``, for the hints, such as ``in stage samples``.
        """
        if count % self.sets:
            reason = f"must divide the number of samples, {count}, got {self.sets}"
            hint = f"write a count {where} that is a multiple of {self.sets}"
            yield Problem(("sets",), reason, hint, Code.OUT_OF_RANGE)
        where += ", for each set" if self.sets > 1 else ""
        yield from count_problems(self.metrics, count // self.sets, where)

    def scorer(self, context: Context) -> Scorer:
        """Return the scorer, with the data and all networks loaded."""
        extractors = Extractors(context)
        return Scorer(
            context,
            self.bound_metrics(context),
            self.reference(extractors),
            extractors,
            self.sets,
            self.tolerance,
        )
