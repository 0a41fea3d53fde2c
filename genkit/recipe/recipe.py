"""A whole recipe: decoded, checked, and every mistake located."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from genkit.errors import DataError, Key, Problem, RecipeError
from genkit.interfaces import Dataset, Stage
from genkit.plugin.manager import Plugins
from genkit.recipe.decode import MAX_PROBLEMS, Decoder, TooManyProblems
from genkit.recipe.locate import key_lines
from genkit.recipe.overrides import TOP_LEVEL, Override, apply_overrides
from genkit.recipe.source import Source
from genkit.settings import setting, shown, toml_key

MAX_STAGES = 99


@dataclass(frozen=True, kw_only=True)
class Head:
    """The keys at the top of a recipe."""

    name: str = setting(doc="name of the run's folder: letters, digits and . _ -")
    seed: int = setting(0, doc="what all random numbers derive from", at_least=0)
    data: Dataset | None = setting(None, doc="the data of every stage that names no other")
    device: str = setting("auto", doc="where to compute: auto, cpu, cuda, cuda:N or mps")
    next: str = setting("", doc="command to suggest when the run is finished")


@dataclass(frozen=True, kw_only=True)
class Recipe(Head):
    """A recipe without mistakes.

    Attributes:
        stages: by id, in the order in which they run.
        source: the recipe as it was written.
        overrides: ``KEY=VALUE`` as typed, already applied to everything but ``source``.
    """

    stages: Mapping[str, Stage]
    source: Source = field(compare=False, repr=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)


def load_recipe(source: Source, plugins: Plugins, overrides: Sequence[str] = ()) -> Recipe:
    """Decode and check a recipe, before anything runs or is written.

    Args:
        source: the recipe as it was read.
        plugins: where components are found.
        overrides: ``KEY=VALUE`` from the command line.

    Raises:
        RecipeError: all mistakes at once, by line: ``FILE:LINE: key.path: reason; hint``.
    """
    table, made, mistakes = apply_overrides(source.table, overrides)
    reading = _Reading(table, plugins)
    try:
        head, stages = reading.decode()
    except TooManyProblems:
        head, stages = None, {}
    problems = reading.decoder.problems
    if head is None or problems or mistakes:
        raise RecipeError([*_located(problems, source, made, table), *mistakes])
    return Recipe(
        name=head.name,
        seed=head.seed,
        data=head.data,
        device=head.device,
        next=head.next,
        stages=MappingProxyType(stages),
        source=source,
        overrides=tuple(overrides),
    )


class _Reading:
    """The decoding of one recipe, from its table to its checks."""

    def __init__(self, table: Mapping[str, Any], plugins: Plugins) -> None:
        self.table = table
        raw = table.get("stage")
        self.raw_stages: list[Any] = raw if isinstance(raw, list) else []
        self.ids = [_stage_id(raw) for raw in self.raw_stages]
        self.decoder = Decoder(plugins.registry, self.ids)

    def decode(self) -> tuple[Head | None, dict[str, Stage]]:
        head = self._head()
        self._stages()
        sound = {i: stage for i, stage in self.decoder.stages.items() if stage is not None}
        self._check(sound)
        return head, sound

    def _head(self) -> Head | None:
        decoder = self.decoder
        top = {key: value for key, value in self.table.items() if key != "stage"}
        head: Head | None = decoder.dataclass(Head, top, ())
        if "data" in top:
            made = dict(decoder.components).get(("data",))
            decoder.inherited["data"] = made
        if head is None:
            return None
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", head.name):
            hint = "write at most 100 letters, digits and . _ - and start with a letter or digit"
            decoder.note(("name",), f"{shown(head.name)} cannot name a folder", hint)
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", head.device):
            decoder.note(
                ("device",),
                f"{shown(head.device)} is no device",
                "write auto, cpu, cuda, cuda:N or mps",
            )
        return head

    def _stages(self) -> None:
        note = self.decoder.note
        stages = self.table.get("stage")
        if "stage" not in self.table or stages == []:
            note(("stage",), "missing: a recipe has at least one stage", "write [[stage]]")
        elif not isinstance(stages, list):
            note(("stage",), "is not a list of tables", "write [[stage]] with double brackets")
        elif len(stages) > MAX_STAGES:
            note(("stage",), f"{len(stages)} stages; a recipe has at most {MAX_STAGES}")
            return
        for index, raw in enumerate(self.raw_stages):
            self._stage(raw, self.ids[index], ("stage", index))

    def _stage(self, raw: object, stage_id: str, key: Key) -> None:
        note = self.decoder.note
        if not isinstance(raw, dict):
            note(key, f"{shown(raw)} is not a stage", "write [[stage]] and its settings below")
            return
        before = len(self.decoder.problems)
        if "id" not in raw:
            note((*key, "id"), "missing: other stages name this one by it", 'write id = "..."')
        elif not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", stage_id):
            hint = "write a string of at most 100 lower-case letters, digits, _ and -"
            note((*key, "id"), f"{shown(raw['id'])} cannot be an id", hint)
        elif stage_id in TOP_LEVEL:
            note((*key, "id"), f"{shown(stage_id)} is a key of the recipe", "choose another id")
        elif stage_id in self.decoder.stages:
            note((*key, "id"), f"{shown(stage_id)} is the id of a stage above", "choose another id")
        named = before == len(self.decoder.problems)
        settings = {name: value for name, value in raw.items() if name != "id"}
        self.decoder.current = stage_id
        stage = self.decoder.component(["stage"], settings, key)
        if stage_id not in self.decoder.stages:
            self.decoder.stages[stage_id] = stage if named and isinstance(stage, Stage) else None

    def _check(self, stages: Mapping[str, Stage]) -> None:
        """Ask data sets for their data, and every component of sound stages for its mistakes."""
        seen: set[str] = set()
        for key, component in self.decoder.components:
            if isinstance(component, Dataset):
                self._collect(key, seen, _spec_problems(component))
            if key[0] != "stage":
                self._collect(key, seen, component.check({}))
        earlier: dict[str, Stage] = {}
        shaky: set[str] = set(self.ids) - stages.keys()
        for index, stage_id in enumerate(self.ids):
            here = ("stage", index)
            for key, component in self.decoder.components:
                if key[:2] == here and not self._refers(key, shaky):
                    self._collect(key, seen, component.check(MappingProxyType(earlier)))
            if self._refers(here, shaky):
                shaky.add(stage_id)
            elif stage_id in stages:
                earlier[stage_id] = stages[stage_id]

    def _refers(self, key: Key, stages: set[str]) -> bool:
        """Whether what stands at a key refers to one of some stages."""
        return any(
            stage in stages and at[: len(key)] == key for at, stage in self.decoder.references
        )

    def _collect(self, key: Key, seen: set[str], problems: Iterable[Problem]) -> None:
        """Note what a component yields; data that cannot be read is told once, where it stands."""
        try:
            for problem in problems:
                self.decoder.note((*key, *problem.key), problem.reason, problem.hint)
        except DataError as error:
            if str(error) not in seen:
                seen.add(str(error))
                self.decoder.note(key, str(error))


def _spec_problems(dataset: Dataset) -> Iterator[Problem]:
    dataset.spec()  # raises what is wrong with it
    yield from ()


def _stage_id(raw: object) -> str:
    found = raw.get("id") if isinstance(raw, dict) else None
    return found if isinstance(found, str) else ""


def _located(
    problems: Sequence[Problem], source: Source, made: Sequence[Override], table: Mapping[str, Any]
) -> list[str]:
    """Return a line for each problem, by its place in the file, then in the overrides."""
    lines = key_lines(source.text) if problems else {}
    located: list[tuple[int, str]] = []
    for problem in problems:
        order, place = _place(problem.key, lines, made, source.label)
        key = _written(problem.key, table)
        said = " ".join(f"{problem.reason}{'; ' * bool(problem.hint)}{problem.hint}".split())
        located.append((order, f"{place}: {key}: {said}"))
    located.sort(key=lambda item: item[0])
    if len(problems) >= MAX_PROBLEMS:
        located.append((0, f"{source.label}: there may be more than these {MAX_PROBLEMS} mistakes"))
    return [line for _, line in located]


def _place(
    key: Key, lines: Mapping[Key, int], made: Sequence[Override], label: str
) -> tuple[int, str]:
    """Return the place of a key, or of the nearest table around it that is written anywhere."""
    for number, override in reversed(list(enumerate(made))):
        if key[: len(override.key)] == override.key:
            return (1_000_000_000 + number, override.label)
    around = (key[:length] for length in range(len(key), 0, -1))
    line = next((lines[k] for k in around if k in lines), 1)
    return (line, f"{label}:{line}")


def _written(key: Key, table: Mapping[str, Any]) -> str:
    """Return a key path as ``--set`` takes it, a stage by its id."""
    parts = [toml_key(part) for part in key]
    if len(key) > 1 and key[0] == "stage" and isinstance(key[1], int):
        stage_id = _stage_id(table["stage"][key[1]])
        parts[:2] = [toml_key(stage_id)] if stage_id else [f"stage.{key[1]}"]
    return ".".join(parts)
