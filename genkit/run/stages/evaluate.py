"""The evaluate stage: scores of the samples of an earlier stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from genkit.errors import Problem
from genkit.files import write_json
from genkit.interfaces import Context, Dataset, Metric, Stage, Stages, Subject
from genkit.report.plots import curve_plot
from genkit.run.stages.sample import SAMPLES, load_samples, sample_stage
from genkit.run.stages.scores import (
    comparison_problems,
    load_reference,
    measure,
    write_scores,
)
from genkit.settings import SamplesRef, setting


@dataclass(frozen=True, kw_only=True)
class Evaluate(Stage):
    """Measures samples against data, and the denoiser behind them."""

    output = "scores"
    shared = True

    samples: SamplesRef = setting(doc="stage that drew the samples")
    data: Dataset = setting(doc="the real items to compare with", inherit="data")
    metrics: tuple[Metric, ...] = setting(doc="what to measure")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        return comparison_problems(self.data, earlier[self.samples], earlier)

    def run(self, context: Context) -> None:
        drawn = load_samples(context.path(self.samples) / SAMPLES)
        denoiser = context.network(sample_stage(context.stage(self.samples)).denoiser)
        subject = Subject(drawn.batch, load_reference(self.data, context), denoiser.module)
        found = measure(self.metrics, subject, context)
        if not context.world.leads:
            return
        row = {"nfe": drawn.nfe, "guidance_nfe": drawn.guidance_nfe, **found.scores}
        write_json(
            context.folder / "curves.json",
            {name: dataclasses.asdict(curve) for name, curve in found.curves.items()},
        )
        for name, curve in found.curves.items():
            curve_plot(context.folder / f"{name}.png", {name: curve})
        write_scores(context, [row], found.facts)
