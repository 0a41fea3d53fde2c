"""Settings of a sampling stage, taken from the best combination of a sweep."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from genkit.artifacts import Scores, ScoresRef
from genkit.designs import components, problems_of
from genkit.errors import Code, DataError, Key, Problem, SettingError
from genkit.fields import Settings, fields_of
from genkit.files import inf_as_text
from genkit.interfaces import Component, Context, SamplingStage, Stage, Stages
from genkit.plugin.manager import load_plugins
from genkit.settings import near_match, quote, setting, toml_value
from genkit_stages.sweep import Cell, Sweep, apply_cell

S = TypeVar("S", bound=SamplingStage)

SEED_SETTINGS = frozenset({"count", "first_seed"})
"""Settings that determine which samples are drawn, not how they are drawn."""

FREE_SETTINGS = SEED_SETTINGS | {"batch_size", "latents"}
"""Settings in which the final samples may differ from those of the sweep.

Latents are the random numbers of the samples, like their seeds. No sample depends on its batch.
"""


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
        yield from (problem.under(key) for problem in self._score_problems(sweep))
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
            return
        first = getattr(template, "first_seed", 0)
        if seeds.start < first + sweep.count and first < seeds.stop:
            yield Problem(
                ("first_seed",),
                f"must be outside the seeds {first} to {first + sweep.count - 1}, with which "
                f"stage {self.stage} chose the settings, got {seeds.start}",
                f"write first_seed = {first + sweep.count}",
                Code.CONFLICT,
            )
        different = list(self._difference_problems(stage, sweep, template))
        yield from different or self._cell_problems(stage, sweep, earlier)

    def _score_problems(self, sweep: Sweep) -> Iterator[Problem]:
        """Yield a problem if the score is not one of the sweep, or the rule chooses its worst."""
        better = {score: m.higher_is_better for m in sweep.metrics for score in m.scores}
        if self.score not in better:
            reason = f"must be a score of stage {self.stage}, got {quote(self.score)}"
            hint = near_match(self.score, better) or f"one of: {', '.join(better)}"
            yield Problem(("score",), reason, hint, Code.UNKNOWN_CHOICE)
        elif better[self.score] is (self.rule == "min"):
            best, word = ("max", "larger") if self.rule == "min" else ("min", "smaller")
            reason = f"must be {quote(best)} for {self.score}, of which a {word} value is better"
            hint = f"write rule = {quote(best)}"
            yield Problem(("rule",), f"{reason}, got {quote(self.rule)}", hint, Code.CONFLICT)

    def _difference_problems(
        self, stage: SamplingStage, sweep: Sweep, template: Stage
    ) -> Iterator[Problem]:
        """Yield a problem for each setting that the sweep neither varies nor has in common."""
        if (source := getattr(template, "settings_from", None)) is not None:
            yield Problem(
                ("settings_from", "stage"),
                f"must sweep over a stage whose settings are written, got stage {sweep.samples}, "
                f"whose settings are those of stage {source.stage}",
                f"write the settings of stage {sweep.samples} instead of its settings_from",
                Code.CONFLICT,
            )
            return
        for key, own, swept in _differences(stage, template):
            if key[0] in FREE_SETTINGS or _is_varied(key, sweep):
                continue
            hint = f"write the {key[0]} of stage {sweep.samples}"
            if swept is None:
                hint = f"remove {key[-1]}"
            elif not any(isinstance(value, (Settings, tuple)) for value in (own, swept)):
                hint = f"write {_within_its_table(key)} = {toml_value(swept)}"
            yield Problem(
                key,
                f"must be {_shown(swept)} as in stage {sweep.samples}, with which stage "
                f"{self.stage} compares settings, got {_shown(own)}",
                hint,
                Code.CONFLICT,
            )

    def _cell_problems(
        self, stage: SamplingStage, sweep: Sweep, earlier: Stages
    ) -> Iterator[Problem]:
        """Yield the problems of the stage with the first combination that is invalid for it."""
        key = ("settings_from", "stage")
        own = {problem.reason for problem in _problems_within(stage, earlier)}
        for cell in sweep.cells():
            try:
                problems = list(_problems_within(apply_cell(stage, cell), earlier))
            except SettingError as error:
                problems = list(error.problems)
            problems = [problem for problem in problems if problem.reason not in own]
            if problems and not any(sweep.check(earlier)):  # the sweep reports its own problems
                for problem in problems:
                    reason = f"with {quote(cell)} of stage {self.stage}: {problem.reason}"
                    yield replace(problem, key=key, reason=reason)
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


def _problems_within(stage: SamplingStage, earlier: Stages) -> Iterator[Problem]:
    """Yield the problems of a stage and of the components in it."""
    for part in components(stage):
        yield from problems_of(part, earlier)


def _differences(own: Any, other: Any, *key: str | int) -> Iterator[tuple[Key, Any, Any]]:
    """Yield key and both values of each setting in which two components differ.

    A component of another type is one difference, as is a list of another length. Settings that
    affect no result are left out.
    """
    if isinstance(own, Settings) and type(own) is type(other):
        for field in fields_of(type(own)):
            if field.setting.affects_result:
                mine, theirs = (getattr(settings, field.name) for settings in (own, other))
                yield from _differences(mine, theirs, *key, field.name)
    elif isinstance(own, tuple) and isinstance(other, tuple) and len(own) == len(other):
        for index, (mine, theirs) in enumerate(zip(own, other, strict=True)):
            yield from _differences(mine, theirs, *key, index)
    elif own != other:
        yield key or ("use",), own, other


def _within_its_table(key: Key) -> str:
    """Return a key as it is written in the innermost item of a list, or in the stage."""
    inner = itertools.takewhile(lambda part: isinstance(part, str), reversed(key))
    return ".".join(map(str, reversed([*inner])))


def _is_varied(key: Key, sweep: Sweep) -> bool:
    """Return whether a sweep varies the setting at a key, or a setting that contains it."""
    # A sweep may omit the index of a single item.
    written = [[*map(str, key)], [part for part in key if isinstance(part, str)]]
    varied = [path.split(".") for path in sweep.varied()]
    return any(parts[: len(path)] == path for path in varied for parts in written)


def _shown(value: Any) -> str:
    """Return a value for a message: a component as its name, and None as "nothing"."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Component):
        return quote(load_plugins().registry.name_of(value))
    return "nothing" if value is None else quote(value)
