"""Check, convert and describe the values of settings by type."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from genkit.errors import Code, Key, Problem
from genkit.settings import Setting, meant_number, near_match, quote

FAILED: Final = object()
"""Placeholder for a value that could not be decoded and whose problems are already recorded."""


Resolve = Callable[["Slot | Group | Reference | FilePathType", Any, Key], Any]
"""Function that decodes a table or checks a reference; it returns ``FAILED`` on a mistake."""


class FieldType(ABC):
    """Type of a field: its valid values and their form in a recipe."""

    @abstractmethod
    def words(self) -> str:
        """Return a description of the type for messages."""

    def example(self) -> str:
        """Return an example of a value, in the form of a recipe."""
        return f"..., {self.words()}"

    @abstractmethod
    def problems(self, value: Any) -> Iterator[Problem]:
        """Yield the problems of a value. Types are strict, but an integer is a valid number."""

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        """Return a value, converted to the type of its field if it is valid.

        Args:
            value: value from a recipe or from Python.
            key: path of the value in the recipe.
            resolve: function that decodes components and references; None if they are already
                decoded.
        """
        return value

    def leaves(self, value: Any) -> Iterator[tuple[FieldType, Any]]:
        """Yield type and value of each item if a valid value is a list, otherwise of the value."""
        yield self, value

    def _mismatch(self, value: Any, hint: str = "") -> Problem:
        return Problem((), f"must be {self.words()}, got {quote(value)}", hint, Code.WRONG_TYPE)


@dataclass(frozen=True)
class Number(FieldType):
    """An integer or a float in the range of its setting."""

    integer: bool
    setting: Setting

    def words(self) -> str:
        return "an integer" if self.integer else "a number"

    def example(self) -> str:
        return f"..., {self.words()} {self.setting.bounds}".rstrip()

    def problems(self, value: Any) -> Iterator[Problem]:
        if isinstance(value, bool) or not isinstance(value, int if self.integer else (int, float)):
            number = meant_number(value)
            yield self._mismatch(value, f"write {number}" if number else "")
            return
        if isinstance(value, int) and value.bit_length() > 63:
            bound = "an integer of at most 64 bits"
        elif not math.isfinite(value) and not (self.setting.infinite and value == math.inf):
            bound = "finite or inf" if self.setting.infinite else "finite"
        elif not self.setting.allows(value):
            bound = self.setting.bounds
        else:
            return
        yield Problem((), f"must be {bound}, got {quote(value)}", code=Code.OUT_OF_RANGE)

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        # 1 and 1.0 must have the same fingerprint.
        return value if self.integer or any(self.problems(value)) else float(value)


@dataclass(frozen=True)
class Plain(FieldType):
    """A string, a boolean or a table."""

    cls: type
    name: str

    def words(self) -> str:
        return self.name

    def example(self) -> str:
        return '"..."' if self.cls is str else super().example()

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, self.cls):
            yield self._mismatch(value, self._hint(value))

    def _hint(self, value: Any) -> str:
        if self.cls is str and not isinstance(value, (list, tuple, Mapping)):
            return f'write "{quote(value)}"'
        lower = value.lower() if self.cls is bool and isinstance(value, str) else ""
        return f"write {lower}" if lower in ("true", "false") else ""


@dataclass(frozen=True)
class Reference(Plain):
    """The id of an earlier stage that writes an artifact of the type ``artifact``."""

    artifact: type[Any]

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        return resolve(self, value, key) if resolve and isinstance(value, str) else value


@dataclass(frozen=True)
class FilePathType(Plain):
    """The path of a file or a folder, or one of ``names``."""

    names: tuple[str, ...]

    def problems(self, value: Any) -> Iterator[Problem]:
        yield from super().problems(value)
        # The limits of Linux. The system reports longer names and NUL as errors of many kinds.
        names = value.encode(errors="replace").split(b"/") if isinstance(value, str) else ()
        if any(len(name) > 255 or b"\0" in name for name in names) or sum(map(len, names)) > 4000:
            reason = (
                "must be a path of at most 4,000 bytes without NUL, with names of at most 255 "
                f"bytes, got {quote(value)}"
            )
            yield Problem((), reason, "write a shorter path without NUL", Code.INVALID_NAME)

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        is_path = isinstance(value, str) and value not in self.names
        return resolve(self, value, key) if resolve and is_path else value


@dataclass(frozen=True)
class Choice(FieldType):
    """One of a fixed set of values."""

    values: tuple[Any, ...]
    renamed: Mapping[str, str] | None

    def words(self) -> str:
        return " or ".join(map(quote, self.values))

    def problems(self, value: Any) -> Iterator[Problem]:
        if not any(value == known and type(value) is type(known) for known in self.values):
            now = (self.renamed or {}).get(value, "") if isinstance(value, str) else ""
            hint = f"write {quote(now)}" if now else near_match(value, map(str, self.values))
            reason = f"must be {self.words()}, got {quote(value)}"
            yield Problem((), reason, hint, Code.UNKNOWN_CHOICE)


@dataclass(frozen=True)
class Slot(FieldType):
    """A component whose class is derived from ``base``."""

    base: type[Any]

    def words(self) -> str:
        # The name of a kind is that of its base class: "noise-distribution" is the kind of
        # NoiseDistribution. A base class of several kinds, such as Network, has one subclass per
        # kind in its package. A subclass whose name ends with that of the base class, such as
        # SamplingStage, belongs to the same kind.
        beside = [c for c in self.base.__subclasses__() if _package(c) == _package(self.base)]
        kinds = [c for c in beside if not c.__name__.endswith(self.base.__name__)]
        if kinds:
            return " or ".join(Slot(kind).words() for kind in kinds)
        return re.sub(r"(?<!^)(?=[A-Z])", "-", self.base.__name__).lower()

    def example(self) -> str:
        return '{ use = "..." }'

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, self.base):
            reason = f"must be a component of kind {self.words()}, got {quote(value)}"
            yield Problem((), reason, code=Code.NOT_A_COMPONENT)

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        return resolve(self, value, key) if resolve else value


@dataclass(frozen=True)
class Group(FieldType):
    """A table of settings of a fixed class, without ``use``."""

    base: type[Any]

    def words(self) -> str:
        return "a table of settings"

    def example(self) -> str:
        return "{ ... }"

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, self.base):
            yield self._mismatch(value)

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        return resolve(self, value, key) if resolve and isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Optional(FieldType):
    """A value or None; a recipe leaves out the key for None."""

    inner: FieldType

    def words(self) -> str:
        return f"{self.inner.words()} or nothing"

    def example(self) -> str:
        return self.inner.example()

    def problems(self, value: Any) -> Iterator[Problem]:
        return iter(()) if value is None else self.inner.problems(value)

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        return None if value is None else self.inner.convert(value, key, resolve)

    def leaves(self, value: Any) -> Iterator[tuple[FieldType, Any]]:
        return iter(()) if value is None else self.inner.leaves(value)


@dataclass(frozen=True)
class List(FieldType):
    """A tuple of any length whose items have one type, or of fixed length with a type per item."""

    inner: tuple[FieldType, ...]
    any_length: bool

    def words(self) -> str:
        first, count = self.inner[0].words(), len(self.inner)
        first = f"a component of kind {first}" if isinstance(self.inner[0], Slot) else first
        return f"a list, each item {first}" if self.any_length else f"{count} values"

    def example(self) -> str:
        return f"[{', '.join(inner.example() for inner in self.inner)}]"

    def _is_item(self, value: Any) -> bool:
        """Return whether a value is a valid item, as far as its type shows."""
        first = self.inner[0]
        if isinstance(first, Slot):
            return isinstance(value, (str, Mapping))
        return not any(first.problems(value))

    def problems(self, value: Any) -> Iterator[Problem]:
        if not isinstance(value, (list, tuple)):
            numbered = isinstance(value, Mapping) and all(str(key).isdecimal() for key in value)
            # A key such as guidance.0.weight changes an item, but there is no list of items.
            is_item = not numbered and self._is_item(value)
            yield self._mismatch(
                value, f"write {f'[{quote(value)}]' if is_item else self.example()}"
            )
        elif not self.any_length and len(value) != len(self.inner):
            reason = f"must have {len(self.inner)} items, got {len(value)}"
            yield Problem((), reason, code=Code.WRONG_LENGTH)
        else:
            for index, (inner, item) in enumerate(self._paired(value)):
                yield from (problem.under(index) for problem in inner.problems(item))

    def convert(self, value: Any, key: Key = (), resolve: Resolve | None = None) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        paired = enumerate(self._paired(value))
        items = [inner.convert(item, (*key, index), resolve) for index, (inner, item) in paired]
        return FAILED if any(item is FAILED for item in items) else (*items, *value[len(items) :])

    def leaves(self, value: Any) -> Iterator[tuple[FieldType, Any]]:
        for inner, item in self._paired(value):
            yield from inner.leaves(item)

    def _paired(self, value: Any) -> Iterator[tuple[FieldType, Any]]:
        return zip(self.inner * len(value) if self.any_length else self.inner, value, strict=False)


def _package(cls: type[Any]) -> str:
    """Return the package of a class; its module if that is not in a package."""
    return cls.__module__.rpartition(".")[0] or cls.__module__


def in_files(kind: FieldType) -> FieldType:
    """Return a type with each reference replaced by the path of a file, as outside of a run."""
    if isinstance(kind, Reference):
        return replace(kind, name=f"the path of a {kind.artifact.name} file")
    if isinstance(kind, Optional):
        return Optional(in_files(kind.inner))
    return replace(kind, inner=tuple(map(in_files, kind.inner))) if isinstance(kind, List) else kind
