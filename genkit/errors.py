"""Errors that genkit raises on purpose, and the codes of mistakes.

::

    GenkitError                exit code
    ├── UsageError             2   a wrong command, name or folder
    │   ├── RecipeError        2   mistakes in a recipe, all of them at once
    │   └── PluginError        2   a component that cannot be loaded, or whose code failed
    │       └── UnknownComponentError 2   a component that no plugin registers
    ├── SettingError           2   a component constructed with values it does not allow
    ├── DataError              2   data that is missing, unreadable or not finite
    │   └── DamagedError       4   a file that is damaged, or no valid checkpoint
    ├── DivergedError          3   a loss or gradient that is not finite
    ├── EndedElsewhere         1   another process of the run ended first, and reported the error
    └── InterruptedRun         130 stopped by the user, resumable

Only the command line catches them. It prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar


class Code(StrEnum):
    """Stable names of kinds of mistakes. Messages may change between versions; codes do not.

    Attributes:
        meaning: description of the mistake in one sentence.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Code:
        """Return a member with its value and meaning."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    SYNTAX = "syntax", "The file is not TOML, or is longer or deeper than a recipe may be."
    UNKNOWN_KEY = "unknown-key", "The component, or the recipe, has no setting of this name."
    RENAMED_KEY = "renamed-key", "The setting was renamed or moved; the message has the new key."
    MISSING_KEY = "missing-key", "A required setting is missing."
    WRONG_TYPE = "wrong-type", "A value has a type that is not allowed."
    WRONG_LENGTH = "wrong-length", "A list or an array has too few or too many items."
    WRONG_SHAPE = "wrong-shape", "An array or an image does not have the required shape."
    WRONG_KIND = "wrong-kind", "A file or an object is not of the required kind."
    OUT_OF_RANGE = "out-of-range", "A number is outside of its range, or a setting is not finite."
    NOT_FINITE = "not-finite", "An array contains a number that is not finite."
    UNKNOWN_CHOICE = "unknown-choice", "The value is not one of the allowed values."
    INVALID_NAME = (
        "invalid-name",
        "A name is reserved, or contains characters that are not allowed.",
    )
    DUPLICATE = "duplicate", "A name or a value that must be unique is given twice."
    UNKNOWN_COMPONENT = "unknown-component", "No plugin registers a component of this name."
    NOT_A_COMPONENT = "not-a-component", "The value must be a component, and is not a table."
    AMBIGUOUS = "ambiguous", "A key can refer to more than one setting."
    UNSUPPORTED_FORMAT = "unsupported-format", "This version of genkit cannot read this format."
    UNKNOWN_STAGE = "unknown-stage", "A reference is not the id of a stage, or there are no stages."
    WRONG_REFERENCE = (
        "wrong-reference",
        "A reference is to a stage that the setting does not allow.",
    )
    TOO_MANY = "too-many", "There are more mistakes than are listed."
    MISSING_ATTRIBUTE = (
        "missing-attribute",
        "Data lacks a required attribute, such as labels.",
    )
    MISSING_PACKAGE = "missing-package", "A required Python package is not installed."
    SKEWED_NOISE = (
        "skewed-noise",
        "The assigned noise is not N(0, I), or is not N(0, I) given the condition.",
    )
    CONFLICT = "conflict", "A value is inconsistent with other values, the data or the component."
    NOT_FOUND = "not-found", "A file, a folder or an entry of a file does not exist."
    UNREADABLE = "unreadable", "A file is damaged, cut off or in another format."
    UNSAFE = "unsafe", "A file is larger than allowed, or could write files or run code when read."
    IO_ERROR = "io-error", "The operating system reports an error on reading or writing a file."
    DOWNLOAD = "download", "A file cannot be downloaded."
    OCCUPIED = "occupied", "The path of an output is already taken."
    IN_USE = "in-use", "Another process is using the folder."
    NO_DEVICE = "no-device", "The machine has no such device, or too few of them."
    OUT_OF_MEMORY = "out-of-memory", "The machine or its GPU has too little memory."
    CHANGED = "changed", "An argument or a file that must not be changed was changed."
    INVALID_RESULT = "invalid-result", "The result of a component violates its interface."
    NOT_CONVERGED = "not-converged", "An iteration ended before it reached its tolerance."
    USAGE = "usage", "A command, a name or a folder is invalid."
    RECIPE = "recipe", "A recipe has mistakes; each has its own code."
    PLUGIN = "plugin", "A component cannot be imported or registered, or its code failed."
    CALLBACK = "callback", "A function that was passed to run_recipe raised an error."
    SETTING = "setting", "A component is constructed with values that are not allowed."
    DATA = "data", "Data is missing, unreadable, of the wrong shape or not finite."
    DIVERGED = "diverged", "A loss or a gradient is not finite."
    ENDED_ELSEWHERE = "ended-elsewhere", "Another process of the run ended first."
    INTERRUPTED = "interrupted", "The user stopped the run."


class GenkitError(Exception):
    """Base class of all errors that a user can correct.

    Args:
        message: mistake and remedy, separated by ``"; "``.
        code: kind of the mistake; None for the code of the class.

    Attributes:
        stage: id of the stage that was running; empty for an error outside of a stage.
    """

    exit_code: ClassVar[int] = 1
    code: Code = Code.USAGE
    stage: str = ""

    def __init__(self, message: str, code: Code | None = None) -> None:
        super().__init__(message)
        self.code = code or self.code

    @property
    def mistakes(self) -> Sequence[Mistake]:
        """Mistakes that the error reports, each with its place if there is one."""
        # The first line is "<mistake>; <remedy>". A list may follow in further lines.
        reason, _, hint = str(self).partition("\n")[0].partition("; ")
        return (Mistake(Problem((), reason, hint, self.code)),)


class UsageError(GenkitError):
    """A command, a name or a folder is invalid."""

    exit_code = 2
    code = Code.USAGE


class PluginError(UsageError):
    """A component cannot be imported or registered, or the code of a plugin failed."""

    code = Code.PLUGIN


class UnknownComponentError(PluginError):
    """No plugin registers a component of this name.

    Args:
        reason: description with the unknown name and its kind.
        hint: what to write instead.
    """

    code = Code.UNKNOWN_COMPONENT

    def __init__(self, reason: str, hint: str) -> None:
        self.problem = Problem((), reason, hint, self.code)
        super().__init__(f"{reason}; {hint}")


class DataError(GenkitError):
    """Data is missing, unreadable, of the wrong shape or not finite."""

    exit_code = 2
    code = Code.DATA


class DamagedError(DataError):
    """A file that genkit wrote does not have the content that was written."""

    exit_code = 4
    code = Code.UNREADABLE


class DivergedError(GenkitError):
    """A loss or a gradient is not finite. The last valid checkpoint is kept."""

    exit_code = 3
    code = Code.DIVERGED


class EndedElsewhere(GenkitError):  # noqa: N818, the error is in another process
    """Another process of the run ended first, and reported the error."""

    code = Code.ENDED_ELSEWHERE


class InterruptedRun(GenkitError):  # noqa: N818, an interruption is not an error
    """The user stopped the run. The same command resumes it."""

    exit_code = 130
    code = Code.INTERRUPTED


Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe.

    Attributes:
        key: path of the setting relative to the component that reports it, such as
            ``("coupler", "by")``.
        reason: mistake, with the invalid value.
        hint: what to write instead; may be empty.
        code: kind of the mistake; the default is for inconsistent values.
    """

    key: Key
    reason: str
    hint: str = ""
    code: Code = Code.CONFLICT

    def under(self, *prefix: str | int) -> Problem:
        """Return the problem with a prefix before its key."""
        return replace(self, key=(*prefix, *self.key))

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return " ".join(f"{self.reason}{hint} [{self.code}]".split())


@dataclass(frozen=True)
class Mistake:
    """A problem with its place in a recipe or on the command line.

    Attributes:
        problem: mistake without its place.
        key: path of the setting as in ``--set``; empty for the whole file.
        file: path of the recipe.
        line: line in the file, from 1; None if unknown.
        column: column in the line, from 1; None if unknown.
        override: invalid argument of ``option``; empty if the mistake is in the file.
        option: command-line option with the argument ``override``.
    """

    problem: Problem
    key: str = ""
    file: str = ""
    line: int | None = None
    column: int | None = None
    override: str = ""
    option: str = "--set"

    def __str__(self) -> str:
        if self.override:
            text = " ".join(self.override.split())
            place = f"{self.option} {text if len(text) <= 60 else text[:57] + '...'}"
        else:
            place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.key, str(self.problem)) if part)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Mistake:
        """Return a mistake that :func:`dataclasses.asdict` converted for JSON."""
        problem = values["problem"]
        codes = {code.value: code for code in Code}
        kept = {"key": tuple(problem["key"]), "code": codes[problem["code"]]}
        return cls(**{**values, "problem": Problem(**{**problem, **kept})})

    def as_json(self) -> dict[str, str | int | None]:
        """Return the mistake as a dict for JSON output; unknown values are None."""
        return {
            "code": self.problem.code.value,
            "file": self.file or None,
            "line": self.line,
            "column": self.column,
            "override": self.override or None,
            "key": self.key or None,
            "message": self.problem.reason,
            "suggestion": self.problem.hint or None,
        }


class RecipeError(UsageError):
    """A recipe has mistakes.

    Args:
        mistakes: all mistakes, with their places.
    """

    code = Code.RECIPE

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self._mistakes = tuple(mistakes)
        count = len(mistakes)
        head = "1 mistake" if count == 1 else f"{count} mistakes"
        listed = "".join(f"\n  {mistake}" for mistake in mistakes)
        super().__init__(f"{head} in the recipe:{listed}")

    @property
    def mistakes(self) -> Sequence[Mistake]:
        return self._mistakes

    @property
    def lines(self) -> tuple[str, ...]:
        """One message per mistake, with place, key, reason, hint and code."""
        return tuple(map(str, self._mistakes))


class SettingError(GenkitError, ValueError):
    """A component was constructed with values that its settings do not allow."""

    exit_code = 2
    code = Code.SETTING

    def __init__(self, owner: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        keys = (".".join([owner, *map(str, problem.key)]) for problem in self.problems)
        super().__init__("; ".join(f"{k}: {p}" for k, p in zip(keys, self.problems, strict=True)))

    @property
    def mistakes(self) -> Sequence[Mistake]:
        return tuple(Mistake(p, ".".join(map(str, p.key))) for p in self.problems)
