"""Locate the mistakes of a recipe: at a line of its file, or in a command-line argument."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from genkit.errors import Code, GenkitError, Key, Mistake, Problem
from genkit.recipe.decode import MAX_PROBLEMS
from genkit.recipe.locate import key_lines, written_key
from genkit.recipe.overrides import Override, apply_overrides, split_override
from genkit.recipe.source import Source


class Reading(Protocol):
    """A decoded table. Its components are checked only if decoding found no problem."""

    @property
    def table(self) -> Mapping[str, Any]:
        """Table of the recipe."""

    @property
    def problems(self) -> Sequence[Problem]:
        """All problems that decoding or the checks found."""

    @property
    def checked(self) -> bool:
        """Whether the components were checked."""


def locate_mistakes(
    reading: Reading,
    source: Source,
    overrides: Sequence[Override],
    read: Callable[[Mapping[str, Any]], Reading],
) -> list[Mistake]:
    """Return the mistakes of a recipe, ordered by their line in the file, then by override.

    Args:
        reading: decoded recipe with its overrides.
        source: text of the recipe, without overrides.
        overrides: applied overrides, in order.
        read: function that decodes and checks a table.
    """
    problems, table = reading.problems, reading.table
    causes = _causes(reading, source, overrides, read)
    lines = key_lines(source.text) if problems else {}
    ordered: list[tuple[int, Mistake]] = []
    for problem in problems:
        key = written_key(problem.key, table)
        number, override = _override_of(problem.key, overrides)
        if override is None and (number := causes.get((problem.key, problem.code), 0)):
            override = overrides[number - 1]
        if override is not None:
            problem = _with_replacement(_for_the_shell(problem, override, table), override, table)
            mistake = Mistake(problem, key, override=override.text, option=override.option)
        else:
            # A recipe in Python has no file, and so no lines.
            line = _line_of(problem.key, lines) if source.label else None
            mistake = Mistake(problem, key, source.label, line)
        ordered.append((number, mistake))
    located = [m for _, m in sorted(ordered, key=lambda item: (item[0], item[1].line or 0))]
    if len(problems) >= MAX_PROBLEMS:
        reason = f"there may be more than these {MAX_PROBLEMS} mistakes"
        located.append(Mistake(Problem((), reason, code=Code.TOO_MANY), "", source.label))
    return located


def _for_the_shell(problem: Problem, override: Override, table: Mapping[str, Any]) -> Problem:
    """Return a problem of an override, with its remedy in the form of ``--set``.

    The remedy is a string, or other keys in the same table.
    """
    if problem.key != override.key:
        return problem
    key, value = split_override(override.text)
    above = written_key(problem.key[:-1], table)
    texts = []
    quoted = re.fullmatch(r'write (".*")', problem.hint)
    if quoted and problem.code == Code.WRONG_TYPE:
        texts = [f"{key}={quoted[1]}"]
    elif problem.code == Code.UNKNOWN_KEY:
        texts = [f"{above}.{k}={value}" for k in re.findall(r'"([^".]+\.[^"]+)"', problem.hint)]
    elif problem.code == Code.RENAMED_KEY and (
        written := re.fullmatch(r"write ([\w.-]+)(?: = (.+))?", problem.hint)
    ):
        new = written[2] or "..."
        # The remedy has ... in place of the value, as in `{ use = "adam", learning_rate = ... }`.
        new = value if '"..."' in new else new.replace("[...]", "...").replace("...", value)
        texts = [f"{above}.{written[1]}={new}"]
    if not texts:
        return problem
    written_out = " or ".join(f"--set {shlex.quote(text.removeprefix('.'))}" for text in texts)
    return replace(problem, hint=f"write {written_out}")


def _with_replacement(problem: Problem, override: Override, table: Mapping[str, Any]) -> Problem:
    """Return a problem, with a new remedy if an override of ``use`` made settings unknown."""
    *above, last = override.key
    if last != "use" or problem.code != Code.UNKNOWN_KEY or problem.key[:-1] != tuple(above):
        return problem
    if len(above) == 2 and above[0] == "stage":  # a whole stage cannot be replaced
        return problem
    _, value = split_override(override.text)
    hint = f"write {written_key(tuple(above), table)}={value}, which replaces the whole table"
    return replace(problem, hint=hint)


def _override_of(key: Key, overrides: Sequence[Override]) -> tuple[int, Override | None]:
    """Return the last override that sets a key, with its number from 1; or 0 and None."""
    for number, override in reversed(list(enumerate(overrides, 1))):
        if key[: len(override.key)] == override.key:
            return number, override
    return 0, None


def _line_of(key: Key, lines: Mapping[Key, int]) -> int:
    """Return the line of a key, or of the innermost table around it that the file contains."""
    around = (key[:length] for length in range(len(key), 0, -1))
    return next((lines[k] for k in around if k in lines), 1)


def _causes(
    reading: Reading,
    source: Source,
    overrides: Sequence[Override],
    read: Callable[[Mapping[str, Any]], Reading],
) -> dict[tuple[Key, Code], int]:
    """Return the number of the override that causes each problem at a key that no override sets.

    For example, ``coupler.use=partitioned`` causes the problem that ``coupler.by`` is missing.
    Numbers are from 1. Problems that the file has without overrides are left out.

    A problem that a check finds is attributed to an override only if the checks also ran without
    the override. Otherwise, the override may only have made the checks possible, as ``data=moons``
    does in a recipe without data.
    """
    causes: dict[tuple[Key, Code], int] = {}
    elsewhere = {
        (p.key, p.code) for p in reading.problems if _override_of(p.key, overrides)[1] is None
    }
    settings = [override.text for override in overrides if override.option == "--set"]
    comparable = False
    for count in range(len(settings) if elsewhere else 0):
        before: set[tuple[Key, Code]] = set()
        checked = False
        with suppress(GenkitError):  # raised by a plugin that fails only on the earlier table
            earlier = read(apply_overrides(source.table, settings[:count])[0])
            before = {(problem.key, problem.code) for problem in earlier.problems}
            checked = earlier.checked or not reading.checked
        causes |= {problem: count for problem in elsewhere & before if comparable}
        elsewhere -= before
        comparable = checked
    return causes | {problem: len(settings) for problem in elsewhere if comparable}
