"""The stage ``evaluate``, which scores the samples of an earlier stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genkit.artifacts import Samples, Scores
from genkit.errors import Problem
from genkit.interfaces import Context, SamplingStage, Stages
from genkit_stages.scoring import Scoring


@dataclass(frozen=True, kw_only=True)
class Evaluate(Scoring):
    """Score samples by comparison with data, and score the denoiser that drew them."""

    def check(self, earlier: Stages) -> Iterator[Problem]:
        stage = earlier[self.samples]
        if isinstance(stage, SamplingStage):
            yield from self.count_problems(stage.count, f"in stage {self.samples}")
        yield from self.scoring_problems(earlier)

    def run(self, context: Context) -> None:
        samples = context.read(self.samples, Samples)
        results = self.scorer(context).measure(samples)
        row = {"nfe": samples.nfe, "guidance_nfe": samples.guidance_nfe, **results.scores}
        if costs := context.costs(self.samples):
            context.record.cost(*costs)
        context.record.save(Scores([row], results.facts, results.curves))
        for name, png in results.pictures.items():
            context.record.picture(name, png)
