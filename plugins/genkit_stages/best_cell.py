"""Settings of a sampling stage, taken from the best combination of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from genkit.artifacts import Scores, ScoresRef
from genkit.errors import Code, DataError, Problem, SettingError
from genkit.fields import Settings
from genkit.files import inf_as_text
from genkit.interfaces import Context, SamplingStage, Stages
from genkit.settings import near_match, quote, setting
from genkit_stages.sweep import Cell, Sweep, apply_cell

S = TypeVar("S", bound=SamplingStage)

SEED_SETTINGS = frozenset({"count", "first_seed"})
"""Settings that determine which samples are drawn, not how they are drawn."""


@dataclass(frozen=True, kw_only=True)
class BestCell(Settings):
    """Reference to a sweep, whose best combination of settings a sampling stage uses.

    The best of many scores is biased: with new samples, the same settings score worse on average.
    So the seeds of the final samples must differ from the seeds of the sweep.
    """

    stage: ScoresRef = setting(doc="stage of the sweep")
    score: str = setting(doc="score by which combinations are compared, such as frechet_classifier")
    rule: Literal["min", "max"] = setting("min", doc="whether the minimum or the maximum is best")

    def check(self, stage: SamplingStage, seeds: range, earlier: Stages) -> Iterator[Problem]:
        """Yield the problems of a stage that uses the settings; keys are relative to that stage.

        Args:
            stage: stage that uses the settings.
            seeds: seeds of its samples.
            earlier: earlier stages, keyed by id.
        """
        sweep = earlier.get(self.stage)
        key = "settings_from"
        if not isinstance(sweep, Sweep):
            yield Problem(
                (key, "stage"),
                f"must be the id of a sweep, got {quote(self.stage)}",
                'name a stage with use = "sweep"',
                Code.WRONG_REFERENCE,
            )
            return
        scores = [score for metric in sweep.metrics for score in metric.scores]
        if self.score not in scores:
            reason = f"must be a score of stage {self.stage}, got {quote(self.score)}"
            hint = near_match(self.score, scores) or f"one of: {', '.join(scores)}"
            yield Problem((key, "score"), reason, hint, Code.UNKNOWN_CHOICE)
        if seed_settings := sorted(SEED_SETTINGS & {*sweep.varied()}):
            yield Problem(
                (key, "stage"),
                f"must vary how samples are drawn, got a sweep over {', '.join(seed_settings)}",
                "name a sweep that varies other settings",
                Code.CONFLICT,
            )
            return
        template = earlier[sweep.samples]
        if template.drawn_by(earlier) != stage.drawn_by(earlier):
            yield Problem(
                (key, "stage"),
                f"must sweep over the denoiser {quote(stage.drawn_by(earlier))}, got "
                f"{quote(template.drawn_by(earlier))}",
                "choose a sweep over samples of this denoiser",
                Code.WRONG_REFERENCE,
            )
        first = getattr(template, "first_seed", 0)
        if seeds.start < first + sweep.count and first < seeds.stop:
            yield Problem(
                ("first_seed",),
                f"must be outside the seeds {first} to {first + sweep.count - 1}, with which "
                f"stage {self.stage} chose the settings, got {seeds.start}",
                f"write first_seed = {first + sweep.count}",
                Code.CONFLICT,
            )
        for cell in sweep.cells():
            try:
                apply_cell(stage, cell)
            except SettingError as error:
                for problem in error.problems:
                    reason = f"stage {self.stage} varies a setting that is invalid here: "
                    yield Problem((key, "stage"), f"{reason}{problem.reason}", problem.hint)
                return

    def apply(self, stage: S, context: Context) -> tuple[S, dict[str, str]]:
        """Return a stage with the best settings, and a dict with a fact that records the choice.

        Raises:
            DataError: the sweep has no such score.
        """
        sweep = context.stage(self.stage)
        rows = context.read(self.stage, Scores).rows
        if not isinstance(sweep, Sweep) or any(self.score not in row for row in rows):
            raise DataError(
                f"stage {self.stage} must have the score {quote(self.score)}, got none; run it "
                "again",
                Code.NOT_FOUND,
            )
        best = min if self.rule == "min" else max
        number = best(range(len(rows)), key=lambda index: rows[index][self.score])
        cell: Cell = list(sweep.cells())[number]
        fact = {
            "stage": self.stage,
            "rule": f"{self.rule} {self.score}",
            "candidates": len(rows),
            "chosen": inf_as_text(cell),
            "score": rows[number][self.score],
        }
        return apply_cell(stage, cell), {"settings_from": json.dumps(fact, sort_keys=True)}
