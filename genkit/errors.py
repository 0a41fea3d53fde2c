"""Every error that genkit raises on purpose.

::

    GenkitError                exit code
    ├── UsageError             2   a wrong command, name or folder
    │   ├── RecipeError        2   mistakes in a recipe, all of them at once
    │   └── PluginError        2   a component that cannot be found or loaded
    ├── SettingError           2   a component constructed with values it does not allow
    ├── DataError              2   data that is missing, unreadable or not finite
    ├── DivergedError          3   a loss or gradient that is not finite
    ├── EndedElsewhere         1   another process of the run ended first, and said why
    └── InterruptedRun         130 stopped by the user, resumable

Only the command line catches them. It prints the message and exits with ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class GenkitError(Exception):
    """Base of all errors that tell a user what to change."""

    exit_code: ClassVar[int] = 1


class UsageError(GenkitError):
    """A command, a name or a folder that cannot be used as given."""

    exit_code = 2


class PluginError(UsageError):
    """A component that cannot be found, imported or accepted."""


class DataError(GenkitError):
    """Data that is missing, unreadable, of the wrong shape or not finite."""

    exit_code = 2


class DivergedError(GenkitError):
    """A loss or gradient that is not finite. The last good checkpoint is kept."""

    exit_code = 3


class EndedElsewhere(GenkitError):  # noqa: N818, the error is in another process
    """Another process of the run ended first, and said why."""


class InterruptedRun(GenkitError):  # noqa: N818, an interruption is no error
    """The user stopped the run. The same command goes on where it stopped."""

    exit_code = 130


Key = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe.

    Attributes:
        key: path of the setting, relative to whoever reports it, such as ``("coupler", "by")``.
        reason: what is wrong, with the value that was found.
        hint: what to write instead; may be empty.
    """

    key: Key
    reason: str
    hint: str = ""

    def under(self, *prefix: str | int) -> Problem:
        """Return the same problem seen from further out."""
        return Problem((*prefix, *self.key), self.reason, self.hint)


class RecipeError(UsageError):
    """Mistakes in a recipe.

    Args:
        lines: one located message a mistake: file, line, key, reason and hint.
    """

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = tuple(lines)
        count = len(self.lines)
        head = "1 mistake" if count == 1 else f"{count} mistakes"
        listed = "".join(f"\n  {line}" for line in self.lines)
        super().__init__(f"{head} in the recipe:{listed}")


class SettingError(GenkitError, ValueError):
    """A component was constructed with values outside what its settings allow."""

    exit_code = 2

    def __init__(self, owner: str, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        told = []
        for problem in problems:
            where = ".".join([owner, *map(str, problem.key)])
            hint = f" ({problem.hint})" if problem.hint else ""
            told.append(f"{where}: {problem.reason}{hint}")
        super().__init__("; ".join(told))
