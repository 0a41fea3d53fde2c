"""Decode tables into components according to the types of their fields, and collect mistakes."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genkit.artifacts import Artifact
from genkit.errors import Code, Key, PluginError, Problem, SettingError, UnknownComponentError
from genkit.field_types import FAILED, FilePathType, Group, Optional, Reference, Slot, in_files
from genkit.fields import Field, fields_of
from genkit.interfaces import Component, Stage
from genkit.plugin.kinds import KINDS
from genkit.plugin.registry import Registry, kinds_of
from genkit.recipe.overrides import TOP_LEVEL, NamedComponent, keys_inside
from genkit.recipe.paths import find_path, name_places
from genkit.settings import near_match, quote

MAX_PROBLEMS = 200


class TooManyProblems(Exception):  # noqa: N818
    """Ends the decoding of a file that has too many mistakes to be a recipe."""


def component(
    registry: Registry, base_or_kind: type[Any] | str, table: Mapping[str, Any]
) -> Component:
    """Construct a component from a recipe table.

    Args:
        registry: registry with the components.
        base_or_kind: base class such as ``Coupler``, or kind such as ``"coupler"``.
        table: ``{"use": name, ...}``. References are paths of files and are not checked.

    Raises:
        SettingError: the table has mistakes, all of which are reported.
        PluginError: the kind or the name is unknown.
    """
    if isinstance(base_or_kind, str) and base_or_kind not in KINDS:
        hint = near_match(base_or_kind, KINDS) or f"known: {', '.join(KINDS)}"
        raise PluginError(f"unknown kind {quote(base_or_kind)}; {hint}")
    kinds = [base_or_kind] if isinstance(base_or_kind, str) else kinds_of(base_or_kind)
    use = table.get("use") if isinstance(table, Mapping) else None
    if isinstance(use, str):
        registry.find(kinds, use)
    decoder = Decoder(registry)
    try:
        result = decoder.component(kinds, table, ())
    except TooManyProblems:
        result = None
    if result is None or decoder.problems:
        raise SettingError(str(use or " or ".join(kinds)), decoder.problems)
    return result


def checked(
    registry: Registry, kind: str, choice: str | Mapping[str, Any] | None, default: str = ""
) -> Component:
    """Construct a component from a name or a table outside of a recipe, and check it.

    Args:
        registry: registry with the components.
        kind: kind of the component.
        choice: name, or table whose values may be ``pathlib`` paths; None for the default.
        default: name of the default component, also for a table without ``use``; empty if there is
            no default.

    Raises:
        SettingError: a setting is unknown or invalid, or ``choice`` is not a name or a table.
        PluginError: the name is unknown.
    """
    if not isinstance(choice, (str, Mapping, types.NoneType)):
        reason = f"must be a name or a table, got {type(choice).__name__}"
        raise SettingError(kind, [Problem((), reason, code=Code.WRONG_TYPE)])
    table = {"use": choice} if isinstance(choice, str) else dict(choice or {})
    table = {key: str(value) if isinstance(value, Path) else value for key, value in table.items()}
    try:
        part = component(registry, kind, {"use": default, **table} if default else table)
    except SettingError as error:  # the option or argument of the user is called like the kind
        raise SettingError(kind, error.problems) from error
    if problems := list(part.check({})):
        raise SettingError(kind, problems)
    return part


class Decoder:
    """Decodes the parts of one recipe.

    Args:
        registry: registry with the components.
        stage_ids: ids of all stages of the recipe, in order; None outside of a recipe, where
            references are paths of files and are not checked.
        folder: folder of the recipe's file, to which paths are relative; None if there is no file.
        typed: keys that are set on the command line.

    Attributes:
        problems: all problems so far, with their keys in the recipe.
        components: key and component of all decoded components, each after the components in its
            settings.
        stages: map from id to stage, for the stages decoded so far; None for a stage with mistakes.
        current: id of the stage that is being decoded.
        inherited: map from a top-level key of the recipe to its component; None for a component
            with mistakes.
        defaults: map from the same keys to the tables of these components.
    """

    def __init__(
        self,
        registry: Registry,
        stage_ids: Sequence[str] | None = None,
        folder: Path | None = None,
        typed: Sequence[Key] = (),
    ) -> None:
        self._registry = registry
        self._stage_ids = stage_ids
        self._folder = folder
        self._typed = typed
        self.problems: list[Problem] = []
        self.components: list[tuple[Key, Component]] = []
        self.stages: dict[str, Stage | None] = {}
        self.current = ""
        self.inherited: dict[str, Component | None] = {}
        self.defaults: dict[str, Mapping[str, Any]] = {}
        self._origins: dict[Key, Key] = {}

    def note(self, problem: Problem) -> None:
        """Note a problem.

        Raises:
            TooManyProblems: there are ``MAX_PROBLEMS``.
        """
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise TooManyProblems

    def component(self, kinds: Sequence[str], table: object, key: Key) -> Component | None:
        """Return the component that a name or a table describes; None if it has mistakes."""
        what = " or ".join(kinds)
        key_of_name = key if isinstance(table, str) else (*key, "use")
        if isinstance(table, str):
            table = {"use": table}
        if not isinstance(table, Mapping):
            hint = 'write { use = "..." }, or "..." for its default settings'
            reason = f"must be a name or a table of a {what}, got {quote(table)}"
            self.note(Problem(key, reason, hint, Code.NOT_A_COMPONENT))
            return None
        if not isinstance(table.get("use"), str):
            known = [e.name for kind in kinds for e in self._registry.entries(kind)]
            hint = f'write use = "..." with one of: {", ".join(known) or "none"}'
            if "use" in table:
                reason = f"must be the name of a {what}, got {quote(table['use'])}"
                self.note(Problem(key_of_name, reason, hint, Code.WRONG_TYPE))
            else:
                reason = f"missing: name of the {what}"
                self.note(Problem(key_of_name, reason, hint, Code.MISSING_KEY))
            return None
        try:
            cls = self._registry.load(self._registry.find(kinds, table["use"]))
        except UnknownComponentError as error:
            self.note(error.problem.under(*key_of_name))
            return None
        except PluginError as error:
            self.note(Problem(key_of_name, str(error), code=error.code))
            return None
        settings = {name: value for name, value in table.items() if name != "use"}
        result = self.dataclass(cls, settings, key)
        if result is not None:
            self.components.append((key, result))
        return typing.cast("Component | None", result)

    def dataclass(self, cls: type[Any], table: Mapping[str, Any], key: Key) -> Any | None:
        """Return an instance of a class with the settings of a table; None if it has mistakes."""
        fields = {field.name: field for field in fields_of(cls)}
        values = {name: self._field(field, table, (*key, name)) for name, field in fields.items()}
        result = None
        if not any(value is FAILED for value in values.values()):
            try:
                result = cls(**{n: v for n, v in values.items() if v is not dataclasses.MISSING})
            except SettingError as error:
                for problem in error.problems:
                    self.note(name_places(problem, values.values()).under(*key))
        for name in (name for name in table if name not in fields):
            if now := getattr(cls, "renamed", {}).get(name):
                renamed = Problem((), "not a setting here", f"write {now}", Code.RENAMED_KEY)
                self.note(renamed.under(*key, name))
                continue
            if self._stage_ids is not None and key and (name in TOP_LEVEL and name != "data"):
                hint = f"write {name} = {quote(table[name])} above the first [[stage]]"
            else:
                keys = [*fields, *(() if key or self._stage_ids is None else ["stage"])]
                listed = f"known: {', '.join(fields) or 'none'}"
                hint = keys_inside(result, name) or near_match(name, keys) or listed
            self.note(Problem((*key, name), "unknown setting", hint, Code.UNKNOWN_KEY))
        return result

    def _field(self, field: Field, table: Mapping[str, Any], key: Key) -> Any:
        """Return the value of a field: MISSING for its class's default, FAILED for a mistake."""
        setting = field.setting
        kind = field.type if self._stage_ids is not None else in_files(field.type)
        if field.name in table:
            value = table[field.name]
            default = setting.use or self.defaults.get(setting.inherit)
            if default and isinstance(value, Mapping) and "use" not in value:
                # Change settings of the default, as --set denoiser.optimizer.learning_rate=0.01.
                value = self._merge(default, value, key, (setting.inherit,))
        elif setting.use is not None:
            value = dict(setting.use)
        elif setting.inherit in self.inherited and setting.unless not in table:
            inherited = self.inherited[setting.inherit]
            return FAILED if inherited is None else inherited
        elif field.default is not dataclasses.MISSING:
            return dataclasses.MISSING
        else:
            hint = f"write {field.name} = {field.type.example()}"
            if setting.inherit:
                hint += f", here or at the top of the recipe as {setting.inherit}"
            about = setting.doc if kind == field.type else kind.words()
            reason = "missing" + (f": {about}" if about else "")
            self.note(Problem(key, reason, hint, Code.MISSING_KEY))
            return FAILED
        inner = kind.inner if isinstance(kind, Optional) else kind
        if isinstance(value, NamedComponent) and not isinstance(inner, Slot):
            below = next(name for name in value if name != "use")
            reason = f"{quote(value['use'])} has no settings: it is not a component"
            hint = f"write {field.name}=VALUE to replace it"
            self.note(Problem((*key, below), reason, hint, Code.UNKNOWN_KEY))
            return FAILED
        value = kind.convert(value, key, self._resolve)
        problems = [] if value is FAILED else list(kind.problems(value))
        for problem in problems:
            self.note(problem.under(*key))
        return FAILED if problems else value

    def _merge(
        self, default: Mapping[str, Any], value: Mapping[str, Any], key: Key, origin: Key
    ) -> dict[str, Any]:
        """Return the table of a default with changed settings; record the origin of all others.

        Components inside of the default are changed in the same way, unless they are replaced.

        Args:
            default: table of a component.
            value: changed settings.
            key: path of the changed settings in the recipe.
            origin: path of the default in the recipe; ``("",)`` for the default of a class.
        """
        merged = {**default, **value}
        for name, old in default.items():
            below, new = ((*key, name), (*origin, name)), value.get(name)
            if name not in value:
                self._origins[below[0]] = below[1]
            elif isinstance(new, Mapping) and "use" not in new:
                table = {"use": old} if isinstance(old, str) else old
                if isinstance(table, Mapping):
                    merged[name] = self._merge(table, new, *below)
        return merged

    def _is_typed(self, key: Key) -> bool:
        """Return whether a value, or the origin of its default, is set on the command line."""
        around = ((key[:length], key[length:]) for length in range(len(key), 0, -1))
        origins = ((*self._origins[a], *below) for a, below in around if a in self._origins)
        key = next(origins, key)
        return any(key[: len(above)] == above for above in self._typed)

    def _resolve(self, leaf: Slot | Group | Reference | FilePathType, value: Any, key: Key) -> Any:
        """Return the decoded value: a component, settings, the id of a stage, or a path."""
        if isinstance(leaf, FilePathType):
            return find_path(value, self._folder, recipe_first=not self._is_typed(key))
        if isinstance(leaf, Reference):
            return self._reference(leaf.artifact, value, key)
        if isinstance(leaf, Group):
            result = self.dataclass(leaf.base, value, key)
        else:
            result = self.component(kinds_of(leaf.base), value, key)
        return FAILED if result is None else result

    def _reference(self, artifact: type[Artifact], stage: str, key: Key) -> Any:
        if self._stage_ids is None:
            return stage
        suitable = [i for i, s in self.stages.items() if s is not None and _writes(s, artifact)]
        if stage in suitable or (stage in self.stages and self.stages[stage] is None):
            return stage
        needed = f"must be the id of a stage above with output {artifact.name}"
        names = ", ".join(suitable)
        hint = near_match(stage, suitable or self.stages.keys() - {stage})
        hint = hint or (f"suitable: {names}" if names else "add one above")
        above = self.stages.get(stage)
        code = Code.WRONG_REFERENCE
        if above is not None:
            what = (
                f"which has output {above.output.name}" if above.output else "which has no output"
            )
        elif stage == self.current:
            what = "which is this stage itself"
        elif stage in self._stage_ids:
            what, hint = "which is below", "move that stage above this one"
        else:
            what, code = "and there is no such stage", Code.UNKNOWN_STAGE
        self.note(Problem(key, f"{needed}, got {quote(stage)}, {what}", hint, code))
        return FAILED


def _writes(stage: Stage, artifact: type[Artifact]) -> bool:
    """Return whether a stage writes an artifact of a type."""
    return stage.output is not None and issubclass(stage.output, artifact)
