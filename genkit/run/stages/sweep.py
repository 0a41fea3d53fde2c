"""The sweep stage: one denoiser, many ways to sample it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from genkit.errors import InterruptedRun, Problem, SettingError
from genkit.interfaces import Component, Context, Dataset, Metric, Stage, Stages, Subject
from genkit.report.plots import score_plot
from genkit.run.fingerprint import components, reference_fields
from genkit.run.log import RowLog, read_rows
from genkit.run.stages.sample import Sample, sample_stage
from genkit.run.stages.scores import (
    comparison_problems,
    load_reference,
    measure,
    write_scores,
)
from genkit.settings import SamplesRef, near_match, setting, shown

C = TypeVar("C", bound=Component)

Cell = dict[str, Any]
"""The values of one combination by key path, such as ``{"schedule.steps": 7}``."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Stage):
    """Scores a denoiser over lists of sampling settings; the rest is as in an earlier stage."""

    output = "scores"
    shared = True

    samples: SamplesRef = setting(doc="sample stage whose settings hold, but for what is varied")
    vary: Mapping[str, Any] = setting(
        doc="lists of values by key path of that stage, such as vary.schedule.steps = [5, 7, 14]"
    )
    count: int = setting(1024, doc="samples for each combination", at_least=2)
    data: Dataset = setting(doc="the real items to compare with", inherit="data")
    metrics: tuple[Metric, ...] = setting(doc="what to measure")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        template = earlier[self.samples]
        if not isinstance(template, Sample):
            yield Problem(("samples",), f'"{self.samples}" is not a stage `sample` of the core')
            return
        yield from comparison_problems(self.data, template, earlier)
        template = dataclasses.replace(template, count=self.count)
        lists = dict(_flatten(self.vary))
        if not lists:
            yield Problem(("vary",), "nothing is varied", "write vary.schedule.steps = [5, 7, 14]")
        for path, values in lists.items():
            if not isinstance(values, list) or not values:
                yield Problem(
                    ("vary", *path.split(".")), f"{shown(values)} is not a list of values"
                )
                continue
            for value in values:
                for problem in _value_problems(template, path.split("."), value, earlier):
                    yield Problem(("vary", *path.split(".")), problem.reason, problem.hint)
        if len(lists) > 1 and all(isinstance(values, list) and values for values in lists.values()):
            yield from self._cell_problems(template, earlier)

    def _cell_problems(self, template: Sample, earlier: Stages) -> Iterator[Problem]:
        """Yield the first combination of values that cannot be sampled, each being valid alone."""
        for cell in self.cells():
            try:
                stage = _of_cell(template, cell)
            except SettingError:
                return  # reported with the value
            for problem in stage.level_problems(earlier):
                yield Problem(("vary",), f"of {shown(cell)}: {problem.reason}", problem.hint)
                return

    def run(self, context: Context) -> None:
        template = dataclasses.replace(sample_stage(context.stage(self.samples)), count=self.count)
        cells, path = list(self.cells()), context.folder / "cells.jsonl"
        world = context.world
        entries = world.lead(lambda: read_rows(path))
        log = RowLog(path, list(entries)) if world.leads else None
        reference = load_reference(self.data, context)
        denoiser = context.network(template.denoiser).module
        for cell in cells[len(entries) :]:
            if context.stop_requested():
                raise InterruptedRun(f"{len(entries)} of {len(cells)} cells")
            stage = _of_cell(template, cell)
            drawn = stage.draw_all(context)
            found = measure(self.metrics, Subject(drawn.batch, reference, denoiser), context)
            cost = {"nfe": drawn.nfe, "guidance_nfe": drawn.guidance_nfe}
            entries.append({"row": {**cell, **cost, **found.scores}, "facts": dict(found.facts)})
            if log:
                log.add(entries[-1])
            context.advance(len(entries), len(cells), "cells")
        if not world.leads:
            return
        rows = [entry["row"] for entry in entries]
        write_scores(context, rows, entries[-1]["facts"])
        settings = {*cells[0], "nfe", "guidance_nfe"}
        for score in [name for name in rows[0] if name not in settings]:
            score_plot(context.folder / f"{score}-against-nfe.png", rows, score)

    def cells(self) -> Iterator[Cell]:
        """Yield all combinations, the last list running fastest."""
        lists = dict(_flatten(self.vary))
        for values in itertools.product(*lists.values()):
            yield dict(zip(lists, values, strict=True))


def _of_cell(template: Sample, cell: Cell) -> Sample:
    """Return the stage with the values of one combination.

    Raises:
        SettingError: there is no such key, or the value is not allowed there.
    """
    for key, value in cell.items():
        template = _with_value(template, key.split("."), value)
    return template


def _flatten(table: Mapping[str, Any], *above: str) -> Iterator[tuple[str, Any]]:
    """Yield ``("schedule.steps", [5, 7])`` for ``{"schedule": {"steps": [5, 7]}}``."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, *above, key)
        else:
            yield ".".join([*above, key]), value


def _value_problems(
    template: Sample, path: Sequence[str], value: Any, earlier: Stages
) -> Iterator[Problem]:
    """Yield what is wrong with one value at a key path, also beside the settings around it."""
    try:
        changed = _with_value(template, path, value)
    except SettingError as error:
        yield from error.problems
        return
    for part in components(changed):
        yield from part.check(earlier)


def _with_value(component: C, path: Sequence[str], value: Any) -> C:
    """Return the component with another value at a key path; in a list, in every item of it.

    Raises:
        SettingError: there is no such key, or the value is not allowed there.
    """
    key, *rest = path
    fields = [f.name for f in dataclasses.fields(component)]
    owner = type(component).__name__
    if key not in fields:
        reason = f'{owner} has no setting "{key}"'
        raise SettingError(owner, [Problem((key,), reason, near_match(key, fields))])
    if key in reference_fields(component):
        reason = f"{owner}.{key} names a stage, which is chosen before anything runs"
        raise SettingError(owner, [Problem((key,), reason, "write a sweep for each stage")])
    if rest:
        inner = getattr(component, key)
        several = isinstance(inner, tuple)
        parts = inner if several else (inner,)
        if not parts or not all(isinstance(part, Component) for part in parts):
            reason = f"{owner}.{key} has no settings of its own to vary"
            raise SettingError(owner, [Problem((key,), reason)])
        changed = tuple(_with_value(part, rest, value) for part in parts)
        return dataclasses.replace(component, **{key: changed if several else changed[0]})
    return dataclasses.replace(component, **{key: value})
