"""Decodes tables into components by the annotations of their fields, collecting every mistake."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, TypeGuard

from genkit.errors import Code, Key, PluginError, Problem, SettingError
from genkit.interfaces import Component, Stage
from genkit.plugin.kinds import KINDS
from genkit.plugin.registry import Registry, kinds_of
from genkit.settings import (
    Ref,
    Setting,
    annotations_of,
    describe_type,
    near_match,
    setting_of,
    shown,
    value_problems,
)

MAX_PROBLEMS = 200

_FAILED: Final = object()
"""Stands for a value that could not be decoded; its problems are noted already."""


class TooManyProblems(Exception):  # noqa: N818
    """Ends the decoding of a file that is nothing like a recipe."""


def component(
    registry: Registry, base_or_kind: type[Any] | str, table: Mapping[str, Any]
) -> Component:
    """Construct a component from a table, as a recipe writes it.

    Args:
        registry: where components are found.
        base_or_kind: an abstract base such as ``Coupler``, or a kind such as ``"coupler"``.
        table: ``{"use": name, ...}``. References to stages are not checked.

    Raises:
        SettingError: every mistake in the table.
        PluginError: the kind is unknown.
    """
    if isinstance(base_or_kind, str) and base_or_kind not in KINDS:
        hint = near_match(base_or_kind, KINDS) or f"known: {', '.join(KINDS)}"
        raise PluginError(f"unknown kind {shown(base_or_kind)}; {hint}")
    kinds = [base_or_kind] if isinstance(base_or_kind, str) else kinds_of(base_or_kind)
    decoder = Decoder(registry)
    try:
        made = decoder.component(kinds, table, ())
    except TooManyProblems:
        made = None
    if made is None or decoder.problems:
        owner = table.get("use") if isinstance(table, Mapping) else None
        raise SettingError(str(owner or " or ".join(kinds)), decoder.problems)
    return made


class Decoder:
    """Decodes the parts of one recipe.

    Args:
        registry: where components are found.
        stage_ids: of all stages of the recipe in their order; None where references to stages
            cannot be checked.

    Attributes:
        problems: every mistake so far, keys relative to the recipe.
        components: every component that was made, innermost first, with its key.
        references: every reference to a stage, with its key.
        stages: the stages that were decoded so far; None for one that has mistakes.
        current: id of the stage that is decoded.
        inherited: components of the recipe's top level by key; None for one that has mistakes.
    """

    def __init__(self, registry: Registry, stage_ids: Sequence[str] | None = None) -> None:
        self._registry = registry
        self._stage_ids = stage_ids
        self.problems: list[Problem] = []
        self.components: list[tuple[Key, Component]] = []
        self.references: list[tuple[Key, str]] = []
        self.stages: dict[str, Stage | None] = {}
        self.current = ""
        self.inherited: dict[str, Component | None] = {}

    def note(self, key: Key, reason: str, hint: str = "", code: Code = Code.CONFLICT) -> None:
        """Note a mistake.

        Raises:
            TooManyProblems: there are enough to be read already.
        """
        self.problems.append(Problem(key, reason, hint, code))
        if len(self.problems) >= MAX_PROBLEMS:
            raise TooManyProblems

    def component(self, kinds: Sequence[str], table: object, key: Key) -> Component | None:
        """Decode a table into a component of one of some kinds; None where it has mistakes."""
        what = " or ".join(kinds)
        if not isinstance(table, Mapping):
            name = shown(table) if isinstance(table, str) else '"..."'
            self.note(key, f"{shown(table)} is not a {what}", f"write {{ use = {name} }}")
            return None
        if not isinstance(table.get("use"), str):
            known = [e.name for kind in kinds for e in self._registry.entries(kind)]
            found = f"{shown(table['use'])} is not a string" if "use" in table else "missing"
            hint = f'write use = "..." with one of: {", ".join(known) or "none"}'
            self.note((*key, "use"), f"{found}: it names the {what}", hint)
            return None
        try:
            cls = self._registry.load(self._registry.find(kinds, table["use"]))
        except PluginError as error:
            self.note((*key, "use"), str(error))
            return None
        settings = {name: value for name, value in table.items() if name != "use"}
        made = self.dataclass(cls, settings, key)
        if made is not None:
            self.components.append((key, made))
        return typing.cast("Component | None", made)

    def dataclass(self, cls: type[Any], table: object, key: Key) -> Any | None:
        """Decode a table into a dataclass by its annotations; None where it has mistakes."""
        if not isinstance(table, Mapping):
            self.note(key, f"{shown(table)} is not a table", "write { key = value }")
            return None
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
        for name in (name for name in table if name not in fields):
            if now := getattr(cls, "renamed", {}).get(name):
                self.note((*key, name), "no longer a setting", f"write {now}", Code.RENAMED_KEY)
                continue
            hint = near_match(name, fields) or f"known: {', '.join(fields) or 'none'}"
            self.note((*key, name), "unknown setting", hint, Code.UNKNOWN_KEY)
        annotations = annotations_of(cls)
        values = {
            name: self._field(annotations[name], field, table, (*key, name))
            for name, field in fields.items()
        }
        if any(value is _FAILED for value in values.values()):
            return None
        try:
            return cls(**{n: v for n, v in values.items() if v is not dataclasses.MISSING})
        except SettingError as error:
            for problem in error.problems:
                self.note((*key, *problem.key), problem.reason, problem.hint)
            return None

    def _field(
        self, annotation: Any, field: dataclasses.Field[Any], table: Mapping[str, Any], key: Key
    ) -> Any:
        """Return a field's value; MISSING where its own default holds."""
        described = setting_of(field)
        if field.name in table:
            value = table[field.name]
            if described.use is not None and isinstance(value, Mapping) and "use" not in value:
                # Such as --set denoiser.optimizer.learning_rate=0.01: settings of the default.
                value = {**described.use, **value}
            return self.value(annotation, value, described, key)
        if described.use is not None:
            return self.value(annotation, dict(described.use), described, key)
        if described.inherit in self.inherited:
            found = self.inherited[described.inherit]
            return _FAILED if found is None else found
        defaults = (field.default, field.default_factory)
        if any(default is not dataclasses.MISSING for default in defaults):
            return dataclasses.MISSING
        hint = f"write {field.name} = {_example(annotation, described)}"
        if described.inherit:
            hint += f", here or at the top of the recipe as {described.inherit}"
        self.note(key, "missing" + (f": {described.doc}" if described.doc else ""), hint)
        return _FAILED

    def value(self, annotation: Any, value: Any, described: Setting, key: Key) -> Any:
        """Return the value that an annotation makes of what TOML holds, or ``_FAILED``."""
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Annotated:
            found = self.value(args[0], value, described, key)
            ref = next((a for a in args[1:] if isinstance(a, Ref)), None)
            return found if found is _FAILED or ref is None else self._reference(ref, found, key)
        if origin in (typing.Union, types.UnionType):
            options = [a for a in args if a is not types.NoneType]
            slots = [a for a in options if _is_component(a)]
            if slots and (len(slots) == len(options) or isinstance(value, Mapping)):
                kinds = [kind for slot in slots for kind in kinds_of(slot)]
                return self._or_failed(self.component(list(dict.fromkeys(kinds)), value, key))
            if len(options) == 1:
                return self.value(options[0], value, described, key)
        elif _is_component(annotation):
            return self._or_failed(self.component(kinds_of(annotation), value, key))
        elif isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
            return self._or_failed(self.dataclass(annotation, value, key))
        elif origin is tuple and isinstance(value, (list, tuple)):
            kinds_of_items = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
            if len(kinds_of_items) == len(value):
                items = [
                    self.value(kind, item, described, (*key, index))
                    for index, (kind, item) in enumerate(zip(kinds_of_items, value, strict=True))
                ]
                return _FAILED if any(item is _FAILED for item in items) else tuple(items)
        problems = list(value_problems(annotation, value, described))
        for problem in problems:
            self.note((*key, *problem.key), problem.reason, problem.hint)
        if problems:
            return _FAILED
        return float(value) if annotation is float else value

    @staticmethod
    def _or_failed(made: Any | None) -> Any:
        return _FAILED if made is None else made

    def _reference(self, ref: Ref, stage: str, key: Key) -> Any:
        """Check that a stage above leaves what is needed."""
        if self._stage_ids is None:
            return stage
        suitable = [i for i, s in self.stages.items() if s is not None and s.output == ref.output]
        if stage in suitable or (stage in self.stages and self.stages[stage] is None):
            self.references.append((key, stage))
            return stage
        needed = f"a stage above that leaves {ref.output} is needed"
        names = ", ".join(suitable)
        near = near_match(stage, suitable or self.stages.keys() - {stage})
        hint = near or (f"suitable: {names}" if names else "add one above")
        above = self.stages.get(stage)
        if above is not None:
            self.note(key, f"stage {shown(stage)} leaves {above.output}; {needed}", hint)
        elif stage == self.current:
            self.note(key, f"{shown(stage)} is this stage itself; {needed}", hint)
        elif stage in self._stage_ids:
            self.note(key, f"stage {shown(stage)} must stand above the stage that needs it")
        else:
            self.note(key, f"there is no stage {shown(stage)}; {needed}", hint)
        return _FAILED


def _is_component(annotation: Any) -> TypeGuard[type[Component]]:
    return isinstance(annotation, type) and issubclass(annotation, Component)


def _example(annotation: Any, described: Setting) -> str:
    """Return what to write for a required field."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if _is_component(annotation):
        return '{ use = "..." }'
    if origin is tuple:
        return f"[{_example(args[0], described)}]"
    if annotation is str or (origin is Annotated and args[0] is str):
        return '"..."'
    return f"..., {describe_type(annotation)} {described.bounds}".rstrip()
