"""Change settings of a recipe with the command-line option ``--set KEY=VALUE``.

In a key, a stage is written as its id, such as ``denoiser.pool_size=1024``, and an item of a list
as its number, such as ``samples.guidance.0.weight=2.5``.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from genkit.errors import Code, Key, Mistake, Problem, RecipeError
from genkit.fields import Settings, keys_of
from genkit.recipe.source import parse_component, parse_toml
from genkit.settings import near_match, quote, toml_key, toml_value

TOP_LEVEL = ("format", "name", "seed", "data", "device", "trackers", "stage")
RETIRED = {"next": "what to run next in a comment, since a run suggests no command"}
"""Map from each top-level key of an earlier version to its replacement."""

_WITH_SLOTS = ("stage", "data", "trackers")  # top-level keys whose values contain components
_MOST_CANDIDATES = 4
_WORDS = re.compile(r"""[^"'\[\]{},=\n#]+""")


@dataclass(frozen=True)
class Override:
    """A change of a recipe's table by a command-line argument.

    Attributes:
        key: path of the setting in the recipe's table.
        text: argument of the option.
        option: ``--set`` or ``--track``.
    """

    key: Key
    text: str
    option: str = "--set"


def apply_overrides(
    table: Mapping[str, Any], texts: Sequence[str]
) -> tuple[dict[str, Any], list[Override], list[Mistake]]:
    """Change a recipe's table, one override after the other.

    Args:
        table: parsed recipe, which is not modified.
        texts: arguments ``KEY=VALUE`` with TOML values.

    Returns:
        The changed table, the applied overrides, and a mistake for each invalid argument.
    """
    changed = copy.deepcopy(dict(table)) if texts else dict(table)
    applied: list[Override] = []
    mistakes: list[Mistake] = []
    for text in texts:
        try:
            parts, value = _parse(text)
            key = _assign(changed, _resolve(changed, parts), value)
        except _Refused as error:
            mistakes.append(Mistake(error.problem, override=text))
        else:
            applied.append(Override(key, text))
    return changed, applied, mistakes


def with_candidates(mistake: Mistake, stages: Mapping[str, Settings]) -> Mistake:
    """Return a mistake in an override; its hint contains the full keys of matching settings.

    Args:
        mistake: mistake that :func:`apply_overrides` found.
        stages: map from id to stage, for stages without mistakes.
    """
    if mistake.problem.code != Code.UNKNOWN_KEY:
        return mistake
    parts, _ = _parse(mistake.override)
    if parts[0] in stages:
        return mistake
    _, value = split_override(mistake.override)
    keys = [
        ".".join(map(toml_key, (stage_id, *key)))
        for stage_id, stage in stages.items()
        for key in keys_of(stage)
        if tuple(map(str, key[-len(parts) :])) == tuple(parts)
    ]
    if not keys:
        return mistake
    written = " or ".join(f"{key}={value}" for key in keys[:_MOST_CANDIDATES])
    more = len(keys) - _MOST_CANDIDATES
    written += f", or {more} more" if more > 0 else ""
    problem = replace(mistake.problem, hint=f"write {written}")
    if len(keys) > 1:
        name = quote(".".join(parts))
        reason = f"must be the key of one setting, got {name}, which {len(keys)} settings have"
        problem = replace(problem, reason=reason, code=Code.AMBIGUOUS)
    return replace(mistake, problem=problem)


def keys_inside(component: Settings | None, name: str) -> str:
    """Return a suggestion for the name of a setting of the components inside of a component.

    Args:
        component: component without a setting of this name; None if it has mistakes.
        name: name of the setting.

    Returns:
        ``did you mean "schedule.steps"?``, or an empty string if no component has the setting.
    """
    keys = [key for key in keys_of(component) if key[-1] == name] if component else []
    written = [f'"{".".join(map(toml_key, key))}"' for key in keys[:_MOST_CANDIDATES]]
    return f"did you mean {' or '.join(written)}?" if written else ""


def add_trackers(
    table: Mapping[str, Any], trackers: Sequence[str | Mapping[str, Any]]
) -> tuple[dict[str, Any], list[Override]]:
    """Return a recipe's table with additional trackers, which are names or tables.

    Returns:
        The changed table, and an override for each added tracker.

    Raises:
        UsageError: a string begins with ``{`` and is not a TOML table.
    """
    own = table.get("trackers", [])
    if not isinstance(own, list):  # a mistake, which is reported when the table is decoded
        return dict(table), []
    tables = [parse_component(t, "--track") if isinstance(t, str) else t for t in trackers]
    names = [t if isinstance(t, str) else quote(t) for t in trackers]
    added = [Override(("trackers", len(own) + i), t, "--track") for i, t in enumerate(names)]
    return {**table, **({"trackers": [*own, *tables]} if tables else {})}, added


class NamedComponent(dict[str, Any]):
    """Table of a component that the recipe writes as a name, with settings from ``--set``."""


class _Refused(Exception):  # noqa: N818
    def __init__(self, code: Code, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.problem = Problem((), reason, hint, code)


def split_override(text: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``, or two empty strings if either is missing."""
    # Split at the first = outside of quotes, since a quoted key may contain =.
    match = re.fullmatch(r"""((?:[^"'=]|"(?:[^"\\]|\\.)*"|'[^']*')*)=(.+)""", text, re.DOTALL)
    return (match[1].strip(), match[2].strip()) if match and match[2].strip() else ("", "")


def _parse(text: str) -> tuple[list[str], Any]:
    key, value = split_override(text)
    if not value:
        hint = "write --set KEY=VALUE, such as --set seed=1"
        raise _Refused(Code.SYNTAX, "must have a key, = and a value", hint)
    node: Any = _toml(f"{key} = 0" if "\n" not in key else "")
    if not node:
        hint = "write names with dots between, such as denoiser.pool_size"
        raise _Refused(Code.SYNTAX, f"must have a key before =, got {quote(key)}", hint)
    parts: list[str] = []
    while isinstance(node, dict):
        ((part, node),) = node.items()
        parts.append(part)
    if value.lower() in ("none", "null"):
        hint = f"remove the setting for no value, or write '{key}=\"{value}\"' for the string"
        raise _Refused(Code.SYNTAX, f"must have a TOML value after =, got {value}", hint)
    parsed = _toml(f"value = {value}") or _toml(f"value = {_with_quotes(value)}")
    if len(parsed) == 1:
        return parts, parsed["value"]
    quoted = value.strip("\"'")
    hint = f"a string needs quotes: --set '{key}=\"{quoted}\"'" if _WORDS.fullmatch(quoted) else ""
    raise _Refused(Code.SYNTAX, f"must have a TOML value after =, got {quote(value)}", hint)


def _with_quotes(value: str) -> str:
    """Return a value with its words quoted, in case the user or the shell removed the quotes."""
    if re.search(r"[\"'#\n]", value):
        return value
    return re.sub(r"[^\[\]{},=]+=?", _with_quotes_around, value)


def _with_quotes_around(part: re.Match[str]) -> str:
    """Return a part of a value between brackets and commas, with quotes unless it is a key."""
    word = part[0].strip()
    if not word or word.endswith("=") or _toml(f"value = {word}"):
        return part[0]
    return f" {toml_value(word)} "


def _toml(text: str) -> dict[str, Any]:
    """Return the table of a TOML text; an empty table if it is not TOML."""
    try:
        return parse_toml(text, "")
    except RecipeError:
        return {}


def _resolve(table: dict[str, Any], parts: list[str]) -> Key:
    """Return the path of a key in the recipe's table, with a number in place of a stage's id."""
    first, *rest = parts
    if first == "stage":
        raise _Refused(Code.UNKNOWN_KEY, "must begin with the id of a stage", "write ID.KEY=VALUE")
    stages = table.get("stage")
    stages = stages if isinstance(stages, list) else []
    ids = [stage.get("id") if isinstance(stage, dict) else None for stage in stages]
    if first in TOP_LEVEL or (first in RETIRED and first not in ids):
        return tuple(parts)
    if first not in ids:
        known = [*(i for i in ids if isinstance(i, str)), *TOP_LEVEL[:-1]]
        hint = near_match(first, known) or f"known: {', '.join(known[:20])}"
        raise _Refused(Code.UNKNOWN_KEY, f"there is no stage or setting {quote(first)}", hint)
    if not rest:
        raise _Refused(
            Code.UNKNOWN_KEY, "this would replace the whole stage", f"write {first}.KEY=VALUE"
        )
    return ("stage", ids.index(first), *rest)


def _assign(table: dict[str, Any], key: Key, value: Any) -> Key:
    """Set a value and return its path; create missing tables, as dotted keys of TOML do.

    If a component is written as a name, the name is replaced by a table with the setting.
    """
    outer: Any = table
    node: Any = table
    path: Key = ()
    for part in key:
        if isinstance(node, str) and path[0] in _WITH_SLOTS and path[-1] not in ("id", "use"):
            node = outer[path[-1]] = NamedComponent(use=node)
        outer = node
        if isinstance(node, list):
            part = part if isinstance(part, int) else _index(part, len(node))
            node = node[part]
        elif isinstance(node, dict):
            node = node.setdefault(part, {}) if len(path) < len(key) - 1 else None
        else:
            raise _Refused(
                Code.UNKNOWN_KEY,
                f"{quote(node)} has no {quote(part)}: it is not a table",
                f"write a value without the name {quote(part)}",
            )
        path = (*path, part)
    outer[path[-1]] = value
    return path


def _index(part: str, length: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", part) or int(part) >= length:
        last = f"the last is {length - 1}" if length else "it is empty"
        if length and not part.isdigit():
            last = f"write 0.{part} for the first item; {last}"
        raise _Refused(Code.UNKNOWN_KEY, f"the list has no item {quote(part)}", last)
    return int(part)
