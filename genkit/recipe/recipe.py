"""Decode and check a whole recipe, and locate its mistakes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from genkit.artifacts.layout import require_file_name
from genkit.blame import plugin_errors, require_type
from genkit.designs import problems_of
from genkit.errors import Code, DataError, Key, Mistake, PluginError, Problem, RecipeError
from genkit.fields import keys_of
from genkit.interfaces import Component, Dataset, Stage
from genkit.plugin.manager import Plugins
from genkit.recipe.decode import Decoder, TooManyProblems
from genkit.recipe.head import Head, format_problem, head_problems, is_later_format
from genkit.recipe.locate import id_of
from genkit.recipe.overrides import (
    TOP_LEVEL,
    add_trackers,
    apply_overrides,
    with_candidates,
)
from genkit.recipe.paths import name_places
from genkit.recipe.places import locate_mistakes
from genkit.recipe.source import Source
from genkit.settings import quote, toml_key
from genkit.types import DataSpec

MAX_STAGES = 99


@dataclass(frozen=True, kw_only=True)
class Recipe(Head):
    """A recipe without mistakes.

    Attributes:
        stages: map from id to stage, in order.
        source: text of the recipe, without overrides.
        overrides: arguments ``KEY=VALUE`` of ``--set``, applied to everything except ``source``.
    """

    stages: Mapping[str, Stage]
    source: Source = field(compare=False, repr=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)


def load_recipe(
    source: Source,
    plugins: Plugins,
    overrides: Sequence[str] = (),
    trackers: Sequence[str | Mapping[str, Any]] = (),
) -> Recipe:
    """Decode and check a recipe, before anything runs or is written.

    Args:
        source: text of the recipe.
        plugins: plugins with the components.
        overrides: arguments ``KEY=VALUE`` of ``--set``.
        trackers: trackers in addition to those of the recipe, as names or tables.

    Raises:
        RecipeError: the recipe has mistakes. The error contains all mistakes that
            :func:`declared_mistakes` finds or, if there are none, all mistakes that the checks of
            the components find, ordered by line: ``FILE:LINE: key.path: reason; hint [code]``.
    """
    reading, mistakes = _read(source, plugins, overrides, trackers)
    if reading.head is None or mistakes:
        raise RecipeError(mistakes)
    return Recipe(
        **vars(reading.head),
        stages=MappingProxyType(reading.stages),
        source=source,
        overrides=tuple(overrides),
    )


def declared_mistakes(
    source: Source,
    plugins: Plugins,
    overrides: Sequence[str] = (),
    trackers: Sequence[str | Mapping[str, Any]] = (),
) -> list[Mistake]:
    """Return the mistakes that are found without reading data and building networks.

    These are unknown keys and components, missing settings, values of wrong types or out of range,
    and invalid references. The arguments are those of :func:`load_recipe`.
    """
    return _read(source, plugins, overrides, trackers, checks=False)[1]


def declared_keys(source: Source, plugins: Plugins) -> list[str]:
    """Return the keys of all settings of a recipe as for ``--set``, without reading data.

    Stages with mistakes are left out.
    """
    stages = _read(source, plugins, (), (), checks=False)[0].stages
    keys = ((i, *key) for i, stage in stages.items() for key in keys_of(stage))
    return [*TOP_LEVEL[:-1], *(".".join(map(toml_key, key)) for key in keys)]


def _read(
    source: Source,
    plugins: Plugins,
    overrides: Sequence[str],
    trackers: Sequence[str | Mapping[str, Any]],
    checks: bool = True,
) -> tuple[_Reading, list[Mistake]]:
    """Return a decoded recipe and its mistakes; components are checked if decoding finds none."""
    table, applied, invalid = apply_overrides(source.table, overrides)
    table, added = add_trackers(table, trackers)
    checks = checks and not invalid
    typed = [override.key for override in (*applied, *added)]
    reading_of = partial(_Reading, plugins, checks, source.folder, typed)
    reading = reading_of(table)
    located = locate_mistakes(reading, source, [*applied, *added], reading_of)
    return reading, [*located, *(with_candidates(mistake, reading.stages) for mistake in invalid)]


class _Reading:
    """Decodes the table of one recipe and checks its components.

    Args:
        plugins: plugins with the components.
        checks: whether components are checked if decoding finds no mistake.
        folder: folder of the recipe's file; None if there is no file.
        typed: keys that are set on the command line.
        table: table of the recipe with its overrides.

    Attributes:
        head: keys at the top level; None if they have mistakes.
        checked: whether the components were checked.
    """

    def __init__(
        self,
        plugins: Plugins,
        checks: bool,
        folder: Path | None,
        typed: Sequence[Key],
        table: Mapping[str, Any],
    ) -> None:
        self.table = table
        self.head: Head | None = None
        self.checked = False
        raw = table.get("stage")
        self.raw_stages: list[Any] = raw if isinstance(raw, list) else []
        self.misspelt = _misspelt_stage(table)
        self.ids = [id_of(raw) for raw in self.raw_stages]
        self.registry = plugins.registry
        self.decoder = Decoder(self.registry, self.ids, folder, typed)
        with suppress(TooManyProblems):
            if problem := format_problem(table):
                self.decoder.note(problem)
            if not is_later_format(table):
                self.head = self._head()
                self._stages()
            self.checked = checks and not self.problems
            if self.checked:
                self._check()

    @property
    def problems(self) -> Sequence[Problem]:
        """All problems that decoding or the checks found."""
        return self.decoder.problems

    @property
    def stages(self) -> dict[str, Stage]:
        """Map from id to stage, for stages without mistakes."""
        return {i: stage for i, stage in self.decoder.stages.items() if stage is not None}

    def _head(self) -> Head | None:
        decoder = self.decoder
        apart = ("stage", "format", self.misspelt)
        top = {key: value for key, value in self.table.items() if key not in apart}
        head: Head | None = decoder.dataclass(Head, top, ())
        if "data" in top:
            decoder.inherited["data"] = dict(decoder.components).get(("data",))
            data = {"use": top["data"]} if isinstance(top["data"], str) else top["data"]
            decoder.defaults["data"] = data if isinstance(data, Mapping) else {}
        if head is None:
            return None
        for problem in head_problems(head, self.registry):
            decoder.note(problem)
        return head

    def _stages(self) -> None:
        stages = self.table.get("stage")
        missing = "stage" not in self.table or stages == []
        if self.misspelt:
            key = (self.misspelt,)
            self.decoder.note(Problem(key, "unknown setting", "write [[stage]]", Code.UNKNOWN_KEY))
        elif missing or not isinstance(stages, list):
            code = Code.MISSING_KEY if missing else Code.WRONG_TYPE
            reason = "a recipe must have a list of one or more stages"
            hint = "write [[stage]] with double brackets, and its settings below"
            self.decoder.note(Problem(("stage",), reason, hint, code))
        elif len(stages) > MAX_STAGES:
            reason = f"must have at most {MAX_STAGES} stages, got {len(stages)}"
            self.decoder.note(Problem(("stage",), reason, code=Code.WRONG_LENGTH))
            return
        for index, raw in enumerate(self.raw_stages):
            self._stage(raw, self.ids[index], ("stage", index))

    def _stage(self, raw: object, stage_id: str, key: Key) -> None:
        if not isinstance(raw, dict):
            reason = f"must be the table of a stage, got {quote(raw)}"
            hint = "write [[stage]] and its settings below"
            self.decoder.note(Problem(key, reason, hint, Code.NOT_A_COMPONENT))
            return
        if mistake := self._id_problem(raw, stage_id):
            self.decoder.note(mistake.under(*key, "id"))
        settings = {name: value for name, value in raw.items() if name != "id"}
        self.decoder.current = stage_id
        stage = self.decoder.component(["stage"], settings, key)
        if isinstance(stage, Stage) and stage.output is not None:
            try:
                require_file_name(stage.output)
            except PluginError as error:
                self.decoder.note(Problem((*key, "use"), str(error), code=error.code))
                stage = None
        if stage_id not in self.decoder.stages:
            valid = stage if isinstance(stage, Stage) and not mistake else None
            self.decoder.stages[stage_id] = valid

    def _id_problem(self, raw: Mapping[str, Any], stage_id: str) -> Problem | None:
        got = f"got {quote(raw.get('id'))}"
        if "id" not in raw:
            reason = "missing: name of the stage, for references and --set"
            return Problem((), reason, 'write id = "..."', Code.MISSING_KEY)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", stage_id):
            hint = "write a string of at most 100 lower-case letters, digits, _ and -"
            return Problem((), f"must be an id, {got}", hint, Code.INVALID_NAME)
        if stage_id in TOP_LEVEL:
            reason = f"must not be a key of the recipe, {got}"
            return Problem((), reason, "choose another id", Code.INVALID_NAME)
        if stage_id in self.decoder.stages:
            reason = f"must differ from the ids of the stages above, {got}"
            return Problem((), reason, "choose another id", Code.DUPLICATE)
        return None

    def _check(self) -> None:
        """Note the problems of data sets, and those that the checks of each stage yield."""
        seen: set[str] = set()
        for key, component in self.decoder.components:
            if isinstance(component, Dataset):
                self._collect(key, component, seen, _spec_problems(component))
            if key[0] != "stage":
                self._collect(key, component, seen, component.check({}))
        earlier: dict[str, Stage] = {}
        for index, (stage_id, stage) in enumerate(self.stages.items()):
            for key, component in self.decoder.components:
                if key[:2] == ("stage", index):
                    problems = problems_of(component, MappingProxyType(earlier))
                    self._collect(key, component, seen, problems)
            earlier[stage_id] = stage

    def _collect(
        self, key: Key, component: Component, seen: set[str], problems: Iterable[Problem]
    ) -> None:
        """Note the problems of a component; note an error of its data only once."""
        try:
            with plugin_errors(self.registry):
                for problem in problems:
                    problem = name_places(problem, vars(component).values())
                    self.decoder.note(problem.under(*key))
        except DataError as error:
            if str(error) not in seen:
                seen.add(str(error))
                problem = Problem(key, str(error), code=error.code)
                self.decoder.note(name_places(problem, vars(component).values()))


def _misspelt_stage(table: Mapping[str, Any]) -> str:
    """Return the misspelt key ``stage`` of a recipe without stages; empty if there is none."""
    tables = [key for key, value in table.items() if isinstance(value, (dict, list))]
    close = [] if "stage" in table else difflib.get_close_matches("stage", tables, 1)
    return close[0] if close else ""


def _spec_problems(dataset: Dataset) -> Iterator[Problem]:
    require_type(dataset, "spec", dataset.spec(), DataSpec)  # an error is noted by the caller
    yield from ()
