"""``--set KEY=VALUE``: a setting of a recipe, changed from the command line.

The key names a stage by its id, ``denoiser.pool_size=1024``, and an item of a list by its number,
``samples.guidance.0.weight=2.5``.
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
"""What to write instead of keys of earlier versions at the top of a recipe."""

_WITH_SLOTS = ("stage", "data", "trackers")  # keys of the table below which components are
_MOST_CANDIDATES = 4
_WORDS = re.compile(r"""[^"'\[\]{},=\n#]+""")


@dataclass(frozen=True)
class Override:
    """A change that was made.

    Attributes:
        key: path of the setting in the recipe's table.
        text: argument of the option, as typed.
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
        texts: ``KEY=VALUE`` with a TOML value.

    Returns:
        Changed table, applied overrides, and a mistake for each override that is invalid.
    """
    changed = copy.deepcopy(dict(table)) if texts else dict(table)
    made: list[Override] = []
    mistakes: list[Mistake] = []
    for text in texts:
        try:
            parts, value = _parse(text)
            key = _assign(changed, _resolve(changed, parts), value)
        except _Refused as error:
            mistakes.append(Mistake(error.problem, override=text))
        else:
            made.append(Override(key, text))
    return changed, made, mistakes


def with_candidates(mistake: Mistake, stages: Mapping[str, Settings]) -> Mistake:
    """Return a mistake in an override with the keys that may be meant, if stages have such keys.

    Args:
        mistake: mistake that :func:`apply_overrides` found.
        stages: stages without mistakes, by id.
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
    problem = replace(mistake.problem, hint=f"write {written}")
    if len(keys) > 1:
        name = quote(".".join(parts))
        reason = f"must name one setting, got {name}, the name of {len(keys)} settings"
        problem = replace(problem, reason=reason, code=Code.AMBIGUOUS)
    return replace(mistake, problem=problem)


def add_trackers(
    table: Mapping[str, Any], trackers: Sequence[str | Mapping[str, Any]]
) -> tuple[dict[str, Any], list[Override]]:
    """Return a recipe's table with further trackers, by name or table.

    Returns:
        Changed table, and an override for each tracker.

    Raises:
        UsageError: a text that begins with ``{`` is no TOML table.
    """
    own = table.get("trackers", [])
    if not isinstance(own, list):  # a mistake, which is reported when the table is decoded
        return dict(table), []
    tables = [parse_component(t, "--track") if isinstance(t, str) else t for t in trackers]
    names = [t if isinstance(t, str) else quote(t) for t in trackers]
    made = [Override(("trackers", len(own) + i), t, "--track") for i, t in enumerate(names)]
    return {**table, **({"trackers": [*own, *tables]} if tables else {})}, made


class NamedComponent(dict[str, Any]):
    """Table of a component of which a recipe gives only the name, with settings of ``--set``."""


class _Refused(Exception):  # noqa: N818
    def __init__(self, code: Code, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.problem = Problem((), reason, hint, code)


def split_override(text: str) -> tuple[str, str]:
    """Return key and value of ``KEY=VALUE``, or two empty texts if it lacks one of them."""
    # The first = outside of quotes, which a key may hold.
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
        hint = f"leave the setting out for no value; write '{key}=\"{value}\"' for the word"
        raise _Refused(Code.SYNTAX, f"must have a TOML value after =, got {value}", hint)
    parsed = _toml(f"value = {value}") or _toml(f"value = {_with_quotes(value)}")
    if len(parsed) == 1:
        return parts, parsed["value"]
    quoted = value.strip("\"'")
    hint = f"a string needs quotes: --set '{key}=\"{quoted}\"'" if _WORDS.fullmatch(quoted) else ""
    raise _Refused(Code.SYNTAX, f"must have a TOML value after =, got {quote(value)}", hint)


def _with_quotes(value: str) -> str:
    """Return a value with quotes around its words, which were left out or taken by the shell."""
    if re.search(r"[\"'#\n]", value):
        return value
    return re.sub(r"[^\[\]{},=]+=?", _with_quotes_around, value)


def _with_quotes_around(part: re.Match[str]) -> str:
    """Return a part between brackets, commas and =; the words in it, unless they are a key."""
    word = part[0].strip()
    if not word or word.endswith("=") or _toml(f"value = {word}"):
        return part[0]
    return f" {toml_value(word)} "


def _toml(text: str) -> dict[str, Any]:
    """Return a parsed text; an empty table if it is not TOML."""
    try:
        return parse_toml(text, "")
    except RecipeError:
        return {}


def _resolve(table: dict[str, Any], parts: list[str]) -> Key:
    """Return the path in the recipe's table of a key that begins with the id of a stage."""
    first, *rest = parts
    if first == "stage":
        raise _Refused(Code.UNKNOWN_KEY, "stages are named by id", "write ID.KEY=VALUE")
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
    """Set a value, create missing tables as TOML's dotted keys do, and return its path.

    The name of a component is expanded to its table, to which the setting is added.
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
                Code.UNKNOWN_KEY, f"{quote(node)} has no {quote(part)}: it is not a table"
            )
        path = (*path, part)
    outer[path[-1]] = value
    return path


def _index(part: str, length: int) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", part) or int(part) >= length:
        last = f"the last is {length - 1}" if length else "it is empty"
        raise _Refused(Code.UNKNOWN_KEY, f"the list has no item {quote(part)}", last)
    return int(part)
