"""The stage ``sweep``, which scores one denoiser over combinations of sampling settings."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from genkit.artifacts import SamplingCost, Scores
from genkit.artifacts.scores import SAMPLED
from genkit.costs import CostMeter
from genkit.designs import components, problems_of, references
from genkit.errors import Code, InterruptedRun, Problem, SettingError
from genkit.files import inf_as_text
from genkit.interfaces import Component, Context, SamplingStage, Stages
from genkit.settings import near_match, quote, setting
from genkit_stages.scoring import Scoring

C = TypeVar("C", bound=Component)
S = TypeVar("S", bound=SamplingStage)

_SAMPLER, _START = f"{SAMPLED}sampler", f"{SAMPLED}start"

MOST_CELLS = 1_000
"""Maximum number of combinations, each of which is checked before the run; chosen, not tuned."""

Cell = dict[str, Any]
"""The values of one combination, keyed by key path, such as ``{"schedule.steps": 7}``."""


@dataclass(frozen=True, kw_only=True)
class Sweep(Scoring):
    """Score a denoiser for all combinations of listed values of sampling settings.

    All other settings are those of the sampling stage ``samples``.
    """

    vary: Mapping[str, Any] = setting(
        doc="list of values for each varied setting of the stage `samples`, such as "
        "vary.schedule.steps = [5, 7, 14]"
    )
    count: int = setting(1024, doc="number of samples for each combination", at_least=2)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        template = earlier[self.samples]
        if not isinstance(template, SamplingStage):
            yield Problem(
                ("samples",),
                f'must be a stage that can sample again, such as `sample`, got "{self.samples}"',
                "name another stage; a third-party stage must derive from SamplingStage",
                Code.WRONG_REFERENCE,
            )
            return
        if taken := list(self._taken_problems(template, earlier)):
            yield from taken
            return
        template = dataclasses.replace(template, count=self.count)
        # The template reports too many samples at its own key, which the cells below repeat.
        yield from (p for p in problems_of(template, earlier) if p.key == ("count",))
        lists = dict(_flatten(self.vary))
        if (combinations := _combinations(lists)) > MOST_CELLS:
            reason = f"must have at most {MOST_CELLS:,} combinations, got {combinations:,}"
            yield Problem(("vary",), reason, "write fewer values", Code.OUT_OF_RANGE)
            return
        problems = [p for path, values in lists.items() for p in _problems(template, path, values)]
        problems += _duplicate_problems(lists)
        yield from problems
        if "count" not in lists:
            yield from self.count_problems(self.count, "in this stage")
        elif not problems:
            for count in lists["count"]:
                yield from self.count_problems(count, "in vary.count")
        yield from self.scoring_problems(earlier)
        if not lists:
            hint = "write vary.schedule.steps = [5, 7, 14]"
            reason = "must have at least one list of values, got none"
            yield Problem(("vary",), reason, hint, Code.MISSING_KEY)
            return
        # The sample stage reports its own mistakes, which every combination would repeat.
        if not problems and not any(
            any(problems_of(part, earlier)) for part in components(template)
        ):
            yield from self._cell_problems(template, earlier)

    def _taken_problems(self, template: SamplingStage, earlier: Stages) -> Iterator[Problem]:
        """Yield a problem for each varied setting that the template takes from another sweep.

        The value of the other sweep would replace that of every combination.
        """
        source = getattr(template, "settings_from", None)
        if source is None or not isinstance(other := earlier.get(source.stage), Sweep):
            return
        for path, taken in itertools.product(self.varied(), other.varied()):
            if _overlap(path, taken):
                yield Problem(
                    ("vary", *path.split(".")),
                    f"must not vary {path}, since {quote(self.samples)} takes {taken} from "
                    f"{quote(source.stage)} (settings_from)",
                    "remove this list, or name a stage without settings_from in samples",
                )

    def _cell_problems(self, template: SamplingStage, earlier: Stages) -> Iterator[Problem]:
        """Yield the problems that prevent sampling with some combination, each problem once."""
        seen = set()
        for cell in self.cells():
            stage = apply_cell(template, cell)
            for problem in (p for part in components(stage) for p in problems_of(part, earlier)):
                at = {*map(str, problem.key)}
                path = max(cell, key=lambda path: len(at & {*path.split(".")}))
                if (path, problem.reason) not in seen:
                    seen.add((path, problem.reason))
                    where = f"with {quote(cell)}: " if len(cell) > 1 else ""
                    key = ("vary", *path.split("."))
                    reason = f"{where}{problem.reason}"
                    yield dataclasses.replace(problem, key=key, reason=reason)

    def work(self, earlier: Stages) -> float:
        template = earlier[self.samples]
        if not isinstance(template, SamplingStage):
            return 0.0
        template = dataclasses.replace(template, count=self.count)
        return sum(apply_cell(template, cell).work(earlier) for cell in self.cells())

    def run(self, context: Context) -> None:
        template = context.stage(self.samples)
        if not isinstance(template, SamplingStage):  # rejected by `check`
            raise TypeError(f"{type(template).__name__} is not a SamplingStage")
        template = dataclasses.replace(template, count=self.count)
        cells = list(self.cells())
        # If draws depend on the device, rows measured on another device are discarded.
        dependent = any(apply_cell(template, cell).depends_on_device for cell in cells)
        device = context.device.type if dependent else "any"
        entries = context.world.on_main(
            lambda: context.record.resume(lambda entry: entry.get("device") == device)
        )
        scorer = self.scorer(context)
        context.advance(len(entries), len(cells), "cells")
        for cell in cells[len(entries) :]:
            if context.stop_requested():
                raise InterruptedRun(f"{len(entries)} of {len(cells)} cells")
            stage = apply_cell(template, cell)
            meter = CostMeter(stage, context)
            # Every rank draws its share; rank 0 counts all samples.
            with meter.drawing(stage.count if context.world.is_main else 0):
                samples = stage.draw(context)
            meter.gather()
            cost = dataclasses.replace(meter.cost(samples), settings=inf_as_text(cell))
            results = scorer.measure(samples)
            counts = {"nfe": samples.nfe, "guidance_nfe": samples.guidance_nfe}
            row = {**inf_as_text(cell), **counts, **results.scores}
            entry = {"device": device, "row": row, "facts": results.facts}
            entries.append({**entry, "cost": dataclasses.asdict(cost)})
            context.record.log(entries[-1])
            context.advance(len(entries), len(cells), "cells")
        context.record.cost(*(SamplingCost(**entry["cost"]) for entry in entries))
        rows = [entry["row"] for entry in entries]
        facts = _common([entry["facts"] for entry in entries], template.sampler_fact(context))
        if _state_sampler(entries[0]["facts"]) and not _state_sampler(facts):
            context.warn(
                "the facts lack how the samples were drawn, which differs between rows; "
                f"return it from {type(template).__name__}.sampler_fact"
            )
        context.record.save(Scores(rows, facts))

    def varied(self) -> Collection[str]:
        return dict(_flatten(self.vary))

    def cells(self) -> Iterator[Cell]:
        """Yield all combinations; the last list varies fastest. None if ``check`` refuses them."""
        lists = dict(_flatten(self.vary))
        if not 0 < _combinations(lists) <= MOST_CELLS:
            return
        for values in itertools.product(*lists.values()):
            yield dict(zip(lists, values, strict=True))


def _combinations(lists: Mapping[str, Any]) -> int:
    """Return the number of combinations of listed values; 0 if a value is not a list."""
    sizes = (len(values) if isinstance(values, list) else 0 for values in lists.values())
    return math.prod(sizes)


def _common(
    facts: Sequence[Mapping[str, Mapping[str, str]]], sampler: str | None
) -> dict[str, dict[str, str]]:
    """Return the facts of each score that are the same for every combination.

    All other facts follow from the settings in the row. The start is an exception, because the
    setting may be ``auto``; so differing starts are listed, one for each row.

    Args:
        facts: for each combination, the facts by score.
        sampler: fact ``sampler`` of the varied stage, which replaces it in all combinations.
    """
    first, *others = facts
    common: dict[str, dict[str, str]] = {}
    for score, of_first in first.items():
        of_others = [other.get(score, {}) for other in others]
        common[score] = {k: v for k, v in of_first.items() if all(o.get(k) == v for o in of_others)}
        starts = [cell[score][_START] for cell in facts if _START in cell.get(score, {})]
        if len(set(starts)) > 1:
            common[score][_START] = ", ".join(starts)
        if _SAMPLER in of_first and sampler is not None:
            common[score][_SAMPLER] = sampler
    return common


def _state_sampler(facts: Mapping[str, Mapping[str, str]]) -> bool:
    return any(_SAMPLER in of_score for of_score in facts.values())


def apply_cell(template: S, cell: Cell) -> S:
    """Return the stage with the values of one combination.

    Raises:
        SettingError: a key does not exist, or its value is invalid.
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


def _overlap(path: str, other: str) -> bool:
    """Return whether two key paths are equal, or one contains the other.

    The index of the only item of a list may be omitted in one of them.
    """
    both = [path.split("."), other.split(".")]
    if not all(any(part.isdigit() for part in parts) for parts in both):
        both = [[part for part in parts if not part.isdigit()] for parts in both]
    return all(own == theirs for own, theirs in zip(*both, strict=False))


def _duplicate_problems(paths: Iterable[str]) -> Iterator[Problem]:
    """Yield a problem for each setting that two lists vary: only the later would have an effect."""
    for first, second in itertools.combinations(paths, 2):
        if _overlap(first, second):
            reason = f"must not vary the same setting as {first}"
            key = ("vary", *second.split("."))
            yield Problem(key, reason, "remove one of the two lists", Code.DUPLICATE)


def _problems(template: SamplingStage, path: str, values: Any) -> Iterator[Problem]:
    """Yield the problems of each single value at a key path."""
    key = ("vary", *path.split("."))
    if not isinstance(values, list) or not values:
        hint = (
            "write at least one value, or remove it" if values == [] else f"write [{quote(values)}]"
        )
        yield Problem(key, f"must be a list of values, got {quote(values)}", hint, Code.WRONG_TYPE)
        return
    problems: dict[str, Problem] = {}
    for value in values:
        try:
            apply_cell(template, {path: value})
        except SettingError as error:
            # A wrong key is the same problem for each value.
            problems |= {p.reason: dataclasses.replace(p, key=key) for p in error.problems}
    yield from problems.values()


def _with_value(component: C, path: Sequence[str], value: Any) -> C:
    """Return a copy of a component with a new value at a key path.

    An item of a list is named by its index, as in ``guidance.1.weight``; the index of a single item
    may be omitted.

    Raises:
        SettingError: the key does not exist, or the value is invalid.
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
            got, hint = quote(inner), f"vary {owner}.{key} itself"
            if inner is None or inner == ():
                got, hint = "none", f"write {key} in the stage whose settings are varied"
            reason = f"{owner}.{key} must be a component to have settings to vary, got {got}"
            raise SettingError(owner, [Problem((key,), reason, hint, Code.UNKNOWN_KEY)])
        only = "0" if len(parts) == 1 else ""
        number = rest.pop(0) if several and rest[0].isdigit() else only
        if not rest or number not in map(str, range(len(parts))):
            reason = f"{owner}.{key} must be followed by the index of one of {len(parts)} items"
            keys = (f"{key}.{i}.{'.'.join(rest) or 'SETTING'}" for i in range(len(parts)))
            hint = f"write {' or '.join(keys)}"
            raise SettingError(owner, [Problem((key,), reason, hint, Code.UNKNOWN_KEY)])
        changed = list(parts)
        changed[int(number)] = _with_value(parts[int(number)], rest, value)
        return dataclasses.replace(component, **{key: changed if several else changed[0]})
    changed_component = dataclasses.replace(component, **{key: value})
    if set(references(changed_component)) != set(references(component)):
        reason = f"{owner}.{key} names a stage, which a sweep cannot vary"
        raise SettingError(owner, [Problem((key,), reason, "write a sweep for each stage")])
    return changed_component
