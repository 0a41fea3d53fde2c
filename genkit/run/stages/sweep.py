"""The sweep stage: one denoiser, many ways to sample it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from genkit.errors import Code, InterruptedRun, Problem, SettingError
from genkit.files import inf_as_text
from genkit.interfaces import Component, Context, Dataset, Metric, Stage, Stages, Subject
from genkit.report.plots import score_plot
from genkit.run.fingerprint import components, references
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
            reason = f'must be the id of a stage `sample` of the core, got "{self.samples}"'
            yield Problem(("samples",), reason, code=Code.WRONG_REFERENCE)
            return
        yield from comparison_problems(self.data, template, earlier)
        template = dataclasses.replace(template, count=self.count)
        lists = dict(_flatten(self.vary))
        if not lists:
            hint = "write vary.schedule.steps = [5, 7, 14]"
            yield Problem(("vary",), "nothing is varied", hint, Code.MISSING_KEY)
            return
        problems = [p for path, values in lists.items() for p in _problems(template, path, values)]
        yield from problems
        # Mistakes of the sample stage are reported there, and would be again for each combination.
        if not problems and not any(any(part.check(earlier)) for part in components(template)):
            yield from self._cell_problems(template, earlier)

    def _cell_problems(self, template: Sample, earlier: Stages) -> Iterator[Problem]:
        """Yield why combinations of values cannot be sampled; each mistake once."""
        seen = set()
        for cell in self.cells():
            stage = _of_cell(template, cell)
            for problem in (p for part in components(stage) for p in part.check(earlier)):
                blamed = (path for path in cell if {*path.split(".")} & {*problem.key})
                path = next(blamed, next(iter(cell)))
                if (path, problem.reason) not in seen:
                    seen.add((path, problem.reason))
                    where = f"with {shown(cell)}: " if len(cell) > 1 else ""
                    key = ("vary", *path.split("."))
                    reason = f"{where}{problem.reason}"
                    yield dataclasses.replace(problem, key=key, reason=reason)

    def run(self, context: Context) -> None:
        template = dataclasses.replace(sample_stage(context.stage(self.samples)), count=self.count)
        cells = list(self.cells())
        path = context.folder / self._rows_file(template, context)
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
            row = {**inf_as_text(cell), **cost, **found.scores}
            entries.append({"row": row, "facts": dict(found.facts)})
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

    def _rows_file(self, template: Sample, context: Context) -> str:
        """Return the name of the rows' file, with the device where draws depend on it."""
        latents = [_of_cell(template, cell).latents for cell in self.cells()]
        on = f"-{context.device.type}" if any(part.depends_on_device for part in latents) else ""
        return f"cells{on}.jsonl"

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


def _problems(template: Sample, path: str, values: Any) -> Iterator[Problem]:
    """Yield what is wrong with the values at a key path, each alone."""
    key = ("vary", *path.split("."))
    if not isinstance(values, list) or not values:
        yield Problem(key, f"must be a list of values, got {shown(values)}", code=Code.WRONG_TYPE)
        return
    for value in values:
        try:
            _of_cell(template, {path: value})
        except SettingError as error:
            yield from (dataclasses.replace(problem, key=key) for problem in error.problems)


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
        raise SettingError(
            owner, [Problem((key,), reason, near_match(key, fields), Code.UNKNOWN_KEY)]
        )
    if rest:
        inner = getattr(component, key)
        several = isinstance(inner, tuple)
        parts = inner if several else (inner,)
        if not parts or not all(isinstance(part, Component) for part in parts):
            reason = f"{owner}.{key} has no settings of its own to vary"
            raise SettingError(owner, [Problem((key,), reason, code=Code.UNKNOWN_KEY)])
        changed = tuple(_with_value(part, rest, value) for part in parts)
        return dataclasses.replace(component, **{key: changed if several else changed[0]})
    made = dataclasses.replace(component, **{key: value})
    if set(references(made)) != set(references(component)):
        reason = f"{owner}.{key} names a stage, which is chosen before anything runs"
        raise SettingError(owner, [Problem((key,), reason, "write a sweep for each stage")])
    return made
