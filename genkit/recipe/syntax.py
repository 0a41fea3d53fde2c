"""Report errors in the TOML of a recipe, with their place and a remedy.

A message of ``tomllib`` describes what its parser expected. The remedy is derived from the text at
the place of the error.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

from genkit.errors import Code, Mistake, Problem, RecipeError
from genkit.recipe.locate import key_lines, written_key
from genkit.settings import quote, scaled_number

_HINTS = {
    "Invalid value": 'strings need quotes ("x"), lists brackets, and true and false lower case',
    "Cannot overwrite a value": "the key is written twice; keep one",
    "Cannot declare": "the table is written twice; keep one, or write [[stage]] for each stage",
    "Expected '=' after a key": "write key = value; a key with other characters than A-Za-z0-9_- "
    "needs quotes",
    "Invalid initial character for a key part": "a key starts with A-Za-z0-9_- or a quote",
    "Invalid statement": "a line is key = value, [table], [[table]] or a # comment",
    "Unclosed array": "a list ends with ]",
    "Unclosed inline table": "an inline table ends with }, on the line where it starts",
    "Unterminated string": "a string ends with the quote that it starts with",
    "Expected newline or end of document after a statement": "write each setting on its own line",
    "Illegal character": "a string ends on its line; write a longer one in three quotes",
    "Exceeds the limit": "write a smaller integer",
}
_SINGLE_STAGE = re.compile(r"^[ \t]*\[[ \t]*stage[ \t]*\]", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_~][A-Za-z0-9_./~-]*")


def not_toml(text: str, label: str, message: str) -> RecipeError:
    """Return the error for a message of ``tomllib``.

    Args:
        text: text that is not TOML.
        label: path of the file with the text.
        message: first sentence of the message of ``tomllib``.
    """
    place = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", message)
    hint = next((h for start, h in _HINTS.items() if message.startswith(start)), "")
    if place is None:
        return syntax_error(label, f"not TOML: {message}", hint)
    reason = f"not TOML: {message[: place.start()]}"
    if message.startswith("Cannot") and (single := _SINGLE_STAGE.search(text)):
        # The parser stops at a later [[stage]], which is correct.
        line = text.count("\n", 0, single.start()) + 1
        hint = "write [[stage]], with double brackets for each stage"
        return syntax_error(label, "not TOML: [stage] is one table", hint, key="stage", line=line)
    if not place[1]:
        last = len(text.splitlines()) or 1
        return syntax_error(label, f"{reason} at the end of the file", hint, line=last)
    at = _Place.of(text, int(place[1]), int(place[2]))
    return syntax_error(
        label, reason, at.hint(message) or hint, key=at.key(), line=at.line, column=at.column
    )


def syntax_error(
    label: str,
    reason: str,
    hint: str = "",
    *,
    key: str = "",
    line: int | None = None,
    column: int | None = None,
) -> RecipeError:
    """Return the error for text that is not a recipe, with line and column if known."""
    problem = Problem((), reason, hint, Code.SYNTAX)
    return RecipeError([Mistake(problem, key, file=label, line=line, column=column)])


@dataclass(frozen=True)
class _Place:
    """Place at which the parser stopped.

    Attributes:
        line: line, from 1.
        column: column, from 1.
        before: text before the place, with newlines as line ends.
        after: text after the place.
    """

    line: int
    column: int
    before: str
    after: str

    @classmethod
    def of(cls, text: str, line: int, column: int) -> _Place:
        text = text.replace("\r\n", "\n")  # tomllib counts columns in this form
        lines = text.split("\n")
        offset = sum(len(above) + 1 for above in lines[: line - 1]) + column - 1
        return cls(line, column, text[:offset], text[offset:])

    def key(self) -> str:
        """Return the key of the setting on this line; empty if there is none."""
        *above, start = self.before.split("\n")
        name = re.match(r"""\s*([A-Za-z0-9_."'-]+)\s*=""", start)
        probe = "\n".join([*above, f"{name[1]} = 0"]) if name else ""
        try:
            table = tomllib.loads(probe)
        except (ValueError, RecursionError):  # the line is inside of a list that begins above
            return ""
        here = [key for key, line in key_lines(probe).items() if line == self.line]
        return written_key(here[-1], table) if here else ""

    def hint(self, message: str) -> str:
        """Return the remedy for a common mistake; an empty string for other mistakes."""
        inside = self.before.rstrip()
        if message.startswith(("Invalid initial character", "Unclosed inline table")):
            if self.after[:1] == "}" and inside.endswith(","):
                return "remove the comma before }"
            if self.after[:1] in ("\n", "#", ""):
                return self._on_one_line()
        number = re.search(r"(?<![\w.])[0-9][0-9_]*(\.[0-9]+)?$", self.before)
        suffixed = number and re.match(r"[A-Za-z]+(?![\w.])", self.after)
        if number and suffixed and (value := scaled_number(number[0] + suffixed[0])):
            return f"write {value}"
        word = _WORD.match(self.after)
        if message.startswith("Invalid value") and word:
            lower = word[0].lower()
            if lower in ("true", "false"):
                return f"write {lower}"
            if lower in ("none", "null"):
                return "remove the setting, since TOML has no null value"
            return f"strings need quotes: write {quote(word[0])}"
        return ""

    def _on_one_line(self) -> str:
        """Return the remedy for an inline table that is written on several lines."""
        start = self.before.rfind("\n") + 1
        statement = self.before[start:] + self.after
        depth, end = 0, 0
        for bracket in re.finditer(r"[\[\]{}]", statement):
            depth += 1 if bracket[0] in "[{" else -1
            if depth <= 0:
                end = bracket.end()
                break
        joined = re.sub(r",?\s*\n\s*([}\]])", r" \1", statement[:end].strip())
        joined = re.sub(r"\s*\n\s*", " ", joined)
        try:
            tomllib.loads(joined)
        except (ValueError, RecursionError):
            joined = ""
        if joined and len(joined) <= 100:
            return f"an inline table must be on one line: write {joined}"
        return "an inline table must be on one line and end with }"
