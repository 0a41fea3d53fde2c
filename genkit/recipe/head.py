"""Define and check the keys at the top level of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from genkit.errors import Code, Problem
from genkit.interfaces import Dataset, Tracker
from genkit.plugin.registry import Registry
from genkit.recipe.overrides import RETIRED
from genkit.settings import meant_number, quote, setting

FORMAT = 1
"""Format of recipes. A recipe without the key ``format`` has format 1 in all versions of genkit."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """The keys at the top level of a recipe."""

    renamed: ClassVar[Mapping[str, str]] = RETIRED

    format: int = setting(FORMAT, doc=f"format of the recipe: {FORMAT}")
    name: str = setting(doc="name of the run's folder: letters, digits and . _ -")
    seed: int = setting(0, doc="seed of all random numbers", at_least=0)
    data: Dataset | None = setting(None, doc="default data set of all stages")
    device: str = setting("auto", doc="device: auto, cpu, cuda, cuda:N or mps")
    trackers: tuple[Tracker, ...] = setting(
        (), doc='trackers of rows, scores and pictures, such as [{ use = "tensorboard" }]'
    )


def format_problem(table: Mapping[str, Any]) -> Problem | None:
    """Return the problem of a recipe whose format is not supported; None if it is supported."""
    value = table.get("format", FORMAT)
    if type(value) is int and value == FORMAT:
        return None
    hint = f"write {FORMAT}"
    if is_later_format(table):
        hint = f"install a version of genkit that reads format {_number(value)}"
    reason = f"must be {FORMAT} in this version of genkit, got {quote(value)}"
    return Problem(("format",), reason, hint, Code.UNSUPPORTED_FORMAT)


def is_later_format(table: Mapping[str, Any]) -> bool:
    """Return whether a recipe has a later format, which this version cannot check."""
    number = _number(table.get("format", FORMAT))
    return number.isdecimal() and int(number) > FORMAT


def _number(value: Any) -> str:
    return meant_number(value) or quote(value)


def head_problems(head: Head, registry: Registry) -> Iterator[Problem]:
    """Yield the problems of the values at the top level.

    Args:
        head: keys at the top level, with values of valid types.
        registry: registry with the names of components.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", head.name):
        reason = f"must be the name of a folder, got {quote(head.name)}"
        hint = "write at most 100 letters, digits and . _ - and start with a letter or digit"
        yield Problem(("name",), reason, hint, Code.INVALID_NAME)
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?|mps", head.device):
        reason = f"must be a device, got {quote(head.device)}"
        hint = "write auto, cpu, cuda, cuda:N or mps"
        yield Problem(("device",), reason, hint, Code.UNKNOWN_CHOICE)
    above: set[type] = set()
    for index, tracker in enumerate(head.trackers):
        if type(tracker) in above:  # both would write to the same folder
            got = quote(registry.name_of(tracker))
            reason = f"must differ from the trackers above, got {got}"
            key = ("trackers", index)
            yield Problem(key, reason, "remove one of the two", Code.DUPLICATE)
        above.add(type(tracker))
