"""Find the lines of keys in a TOML text.

``tomllib`` does not report positions. The functions here take linear time for any text, and
``key_lines`` is exact for text that ``tomllib`` accepts.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genkit.errors import Key
from genkit.settings import toml_key

# No text causes backtracking: every alternative that begins to match also matches to its end, since
# an unclosed string extends to the end of the text. Possessive quantifiers would guarantee this,
# but have a bug in Python before 3.11.5 (python/cpython#106052).
_TOKEN = re.compile(
    r'''
    (?P<string> """ (?: [^"\\]+ | \\.? | "(?!"") )* (?: "{3,5} | \Z )
              | \'\'\' (?: [^']+ | '(?!'') )* (?: '{3,5} | \Z )
              | " (?: [^"\\\n]+ | \\.? )* "?
              | ' [^'\n]* '? )
  | (?P<comment> \# [^\n]* )
  | (?P<word> [^\s"'\#\[\]{},=.]+ )
  | (?P<mark> [\[\]{},=.\n] )
    ''',
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class _Open:
    """A list or an inline table that is not closed yet; ``item`` is the current index in a list."""

    path: Key
    item: int | None


def key_lines(text: str) -> dict[Key, int]:
    """Return a map from the path of every table, setting and list item to its line, from 1."""
    lines: dict[Key, int] = {}
    lengths: dict[Key, int] = {}  # number of tables so far in each array of tables
    table: Key = ()  # path of the last header
    header = 0  # number of brackets of the current header
    parts: list[str] = []  # parts of the current key
    path: Key = ()  # path of the current value
    in_value = False
    nested: list[_Open] = []
    line_of_key = 1

    for kind, lexeme, line in _tokens(text):
        if kind in ("word", "string") and not in_value:
            line_of_key = line if not parts else line_of_key
            parts.append(_unquoted(lexeme))
        elif not in_value and lexeme == "=":
            base = nested[-1].path if nested else table
            path = _add(lines, base, parts, line_of_key)
            parts, in_value = [], True
        elif not in_value and lexeme == "[":
            header += 1
        elif not in_value and lexeme == "]":
            if header:
                table = _header(lines, lengths, parts, line, array=header == 2)
            parts, header = [], 0
        elif not in_value:
            if lexeme == "}" and nested:
                nested.pop()
                in_value = True
        else:
            inside = nested[-1] if nested else None
            if inside and inside.item is not None and (kind != "mark" or lexeme in "[{"):
                path = (*inside.path, inside.item)
                lines.setdefault(path, line)
            if lexeme == "[":
                nested.append(_Open(path, 0))
            elif lexeme == "{":
                nested.append(_Open(path, None))
                in_value = False
            elif lexeme in ("]", "}") and inside:
                nested.pop()
            elif lexeme == "," and inside:
                if inside.item is None:
                    in_value = False
                else:
                    inside.item += 1
            elif lexeme == "\n" and not inside:
                in_value = False
    return lines


def written_key(key: Key, table: Mapping[str, Any]) -> str:
    """Return a key in the form of ``--set``, with the id of a stage in place of its number.

    Args:
        key: path in the table.
        table: table of the recipe.
    """
    parts = [toml_key(part) for part in key]
    if len(key) > 1 and key[0] == "stage" and isinstance(key[1], int):
        stage_id = id_of(table["stage"][key[1]])
        parts[:2] = [toml_key(stage_id)] if stage_id else [f"stage.{key[1]}"]
    return ".".join(parts)


def id_of(stage: object) -> str:
    """Return the id in the table of a stage; an empty string if there is none."""
    value = stage.get("id") if isinstance(stage, Mapping) else None
    return value if isinstance(value, str) else ""


def long_key(text: str, limit: int) -> int:
    """Return the line of the first dotted key with more than ``limit`` parts, or 0."""
    if text.count(".") < limit:
        return 0
    parts = 0
    after_dot = False
    for kind, lexeme, line in _tokens(text):
        if lexeme == ".":
            after_dot = True
            continue
        parts = (parts + 1 if after_dot else 1) if kind in ("word", "string") else 0
        after_dot = False
        if parts > limit:
            return line
    return 0


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Yield kind, text and line of each token, without comments."""
    line = 1
    for match in _TOKEN.finditer(text):
        kind, lexeme = match.lastgroup or "", match[0]
        if kind != "comment":
            yield kind, lexeme, line
        if "\n" in lexeme:
            line += lexeme.count("\n")


def _header(
    lines: dict[Key, int], lengths: dict[Key, int], parts: list[str], line: int, *, array: bool
) -> Key:
    """Return the path of the table that a header opens."""
    path: Key = ()
    for position, part in enumerate(parts, start=1):
        path = (*path, part)
        lines.setdefault(path, line)
        if array and position == len(parts):
            lengths[path] = lengths.get(path, 0) + 1
        if path in lengths:
            path = (*path, lengths[path] - 1)
            lines.setdefault(path, line)
    return path


def _add(lines: dict[Key, int], base: Key, parts: list[str], line: int) -> Key:
    """Record the line of a dotted key and of the tables that it creates, and return its path."""
    for part in parts:
        base = (*base, part)
        lines.setdefault(base, line)
    return base


def _unquoted(lexeme: str) -> str:
    """Return a key without its quotes."""
    if lexeme[0] == '"' and "\\" in lexeme:
        (key,) = tomllib.loads(f"{lexeme} = 0")
        return key
    return lexeme[1:-1] if lexeme[0] in "\"'" else lexeme
