"""The evaluate stage: scores of the samples of an earlier stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genkit.artifacts import Samples, SamplesRef, Scores
from genkit.errors import Problem
from genkit.interfaces import Context, Dataset, Metric, Stage, Stages
from genkit.settings import setting
from genkit_stages.scores import comparison_problems, load_reference, measure


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Measures samples against data, and the denoiser behind them."""

    output = Scores
    shared = True

    samples: SamplesRef = setting(doc="stage that drew the samples")
    data: Dataset = setting(doc="the real items to compare with", inherit="data")
    metrics: tuple[Metric, ...] = setting(doc="what to measure")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        return comparison_problems(self.samples, self.data, self.metrics, earlier)

    def run(self, context: Context) -> None:
        samples = context.read(self.samples, Samples)
        metrics = [(metric, metric.bind(context)) for metric in self.metrics]
        found = measure(metrics, samples, load_reference(self.data, context), context)
        row = {"nfe": samples.nfe, "guidance_nfe": samples.guidance_nfe, **found.scores}
        context.record.save(Scores([row], found.facts, found.curves))
