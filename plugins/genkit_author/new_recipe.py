"""Copy a recipe under a new name, with a comment before each key that states its meaning."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from genkit.errors import Code, Key, PluginError, UsageError
from genkit.field_types import FieldType, FilePathType, Group, List, Optional, Slot
from genkit.fields import Field, fields_of
from genkit.interfaces import Stage
from genkit.plugin.registry import Registry, kinds_of
from genkit.recipe import Source
from genkit.recipe.head import Head
from genkit.recipe.locate import key_lines
from genkit.settings import quote, toml_value

_WIDTH = 100
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'[^']*'")


def check_name(name: str) -> None:
    """Raise UsageError unless ``name`` can be the name of a recipe and of its file."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UsageError(
            f'NAME must be the name of a folder, got "{name}"; write at most 100 letters, digits '
            "and . _ - and start with a letter or digit",
            Code.INVALID_NAME,
        )


def explained(source: Source, name: str, registry: Registry, folder: Path) -> str:
    """Return the text of a recipe under a new name, with a comment before each key.

    A key is explained where it first occurs. Keys without a meaning, such as those of components
    that are not installed, have no comment. Relative paths of files that exist beside the recipe
    are rewritten relative to the new one.

    Args:
        source: recipe to copy; its own comments are kept.
        name: name of the new recipe.
        registry: registry with the components.
        folder: folder of the new recipe.

    Raises:
        UsageError: the name or a path that must be rewritten is not a string on one line.
    """
    positions = key_lines(source.text)
    comments: dict[int, list[str]] = {}
    said: set[str] = set()
    reader = _Reader(registry, source.table)
    for key, text in _comments(reader):
        place = positions.get(key)
        if place is None or text in said:
            continue
        said.add(text)
        # Keys of the same line, as in an inline table, are indented below the first.
        indent = "  " if place in comments and len(key) > 1 else ""
        comments.setdefault(place, []).append(f"{indent}{text}")
    # Not splitlines, which also splits at characters that TOML allows in a line, such as U+2028.
    lines = source.text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    changes = {
        key: moved
        for key, path in reader.paths
        if (moved := _rebase(path, source.folder, folder)) != path
    }
    if isinstance(source.table.get("name"), str):
        changes["name",] = name
    for key, value in changes.items():
        _change(lines, positions[key], key, value)
    result = [
        f"# {name}: a copy of {source.label}, with the meaning of each key.",
        "# `genkit show NAME` prints all settings of a component.",
    ]
    for number, line in enumerate(lines, 1):
        margin = line[: len(line) - len(line.lstrip())]
        for text in comments.get(number, ()):
            start = f"{margin}# {text[: len(text) - len(text.lstrip())]}"
            result += textwrap.wrap(
                text.strip(),
                _WIDTH,
                initial_indent=start,
                subsequent_indent=f"{start}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        result.append(line)
    return "\n".join(result) + "\n"


Explained = Iterator[tuple[tuple[str | int, ...], str]]


def _change(lines: list[str], at: int, key: Key, value: str) -> None:
    """Replace the string of a key in the line ``at``, from 1.

    Each string of the line is tried until the text has the wanted values, since the line may
    contain equal strings, other keys and comments.

    Raises:
        UsageError: no string of the line is the value of the key.
    """
    recipe = tomllib.loads("\n".join(lines))
    table: Any = recipe
    for part in key[:-1]:
        table = table[part]
    table[key[-1]] = value
    wanted, line = toml_value(recipe), lines[at - 1]  # as text, since NaN differs from itself
    for match in _STRING.finditer(line):
        lines[at - 1] = line[: match.start()] + toml_value(value) + line[match.end() :]
        with suppress(tomllib.TOMLDecodeError):
            if toml_value(tomllib.loads("\n".join(lines))) == wanted:
                return
    raise UsageError(
        f"{'.'.join(map(str, key))} must be a string on one line, got line {at}: {quote(line)}; "
        f"write {quote(value)}",
        Code.SYNTAX,
    )


def _rebase(path: str, old: Path | None, new: Path) -> str:
    """Return a path relative to the folder ``new`` if the file exists relative to ``old``."""
    if old is None or path.startswith("~") or Path(path).is_absolute():
        return path
    beside = old / path
    exists = os.path.exists(beside)  # noqa: PTH110, Path.exists raises for a long name
    if not exists or old == new.resolve():
        return path
    try:
        return Path(os.path.relpath(beside, new.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return beside.as_posix()


def _comments(reader: _Reader) -> Explained:
    """Yield key and comment of each key in the table of a recipe."""
    table = reader.recipe
    yield from reader.settings(fields_of(Head), table, ())
    stages = table.get("stage")
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        if isinstance(stage, Mapping):
            key = "stage", index
            yield from reader.component(Slot(Stage), stage, key, None)
            yield (*key, "id"), "id: name of the stage, for references and --set"


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Reads the meanings of keys from the classes of their components.

    Attributes:
        registry: registry with the components.
        recipe: table of the recipe, for components that are inherited from its top level.
        paths: keys and values of the paths that were read so far.
    """

    registry: Registry
    recipe: Mapping[str, Any]
    paths: list[tuple[tuple[str | int, ...], str]] = dataclasses.field(default_factory=list)

    def settings(
        self, fields: tuple[Field, ...], table: Mapping[str, Any], key: tuple[str | int, ...]
    ) -> Explained:
        """Yield the comments of a table whose keys are fields."""
        by_name = {field.name: field for field in fields}
        for name, value in table.items():
            if name in by_name:
                field = by_name[name]
                yield (*key, name), f"{name}: {field.setting.doc}{_range(field)}"
                yield from self.value(field.type, value, (*key, name), field)

    def value(
        self, kind: FieldType, value: Any, key: tuple[str | int, ...], field: Field
    ) -> Explained:
        """Yield the comments inside of a value."""
        match kind:
            case FilePathType() if isinstance(value, str) and value not in kind.names:
                self.paths.append((key, value))
            case Optional():
                yield from self.value(kind.inner, value, key, field)
            case List(any_length=True) if isinstance(value, list):
                for index, item in enumerate(value):
                    yield from self.value(kind.inner[0], item, (*key, index), field)
            case Group() if isinstance(value, Mapping):
                yield from self.settings(fields_of(kind.base), value, key)
            case Slot():
                yield from self.component(kind, value, key, field)

    def component(
        self, kind: Slot, value: Any, key: tuple[str | int, ...], field: Field | None
    ) -> Explained:
        """Yield the comments of a component: its purpose, and those of its settings."""
        table = {"use": value} if isinstance(value, str) else value
        if not isinstance(table, Mapping):
            return
        name = table.get("use") or self._default(field)
        if not isinstance(name, str):
            return
        try:
            cls = self.registry.load(self.registry.find(kinds_of(kind.base), name))
        except PluginError:  # a component that is not installed has no meaning
            return
        summary = (inspect.getdoc(cls) or "").partition("\n\n")[0].replace("\n", " ")
        yield key, f"{name}: {summary}"
        yield from self.settings(fields_of(cls), table, key)

    def _default(self, field: Field | None) -> Any:
        """Return the name of the component that a table without ``use`` changes."""
        if field is None:
            return None
        if field.setting.use is not None:
            return field.setting.use["use"]
        inherited = self.recipe.get(field.setting.inherit)
        return inherited.get("use") if isinstance(inherited, Mapping) else inherited


def _range(field: Field) -> str:
    facts = [field.setting.bounds] if field.setting.bounds else []
    if isinstance(field.default, (bool, int, float, str)):
        facts.append(f"default {quote(field.default)}")
    return f" ({', '.join(facts)})" if facts else ""
