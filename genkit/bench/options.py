"""What the options of ``genkit bench`` mean; needs no torch, so that a mistake shows at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genkit.errors import RecipeError, UsageError
from genkit.recipe.source import parse_toml
from genkit.settings import shown


def parse_sizes(text: str, option: str = "--sizes") -> tuple[int, ...]:
    """Return the numbers of ``"256,512"``, ascending.

    Raises:
        UsageError: something else is written.
    """
    return tuple(sorted(set(_integers(text, option, "256,512,1024"))))


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape of ``"3,32,32"`` or ``"3072"``.

    Raises:
        UsageError: something else is written.
    """
    shape = _integers(text, "--shape", "3,32,32 for images or 3072 for vectors")
    if len(shape) not in (1, 3):
        raise UsageError(
            f'--shape "{text}" has {len(shape)} numbers; write channels, height and width, such as '
            "3,32,32, or the length of a vector, such as 3072"
        )
    return shape


def _integers(text: str, option: str, example: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        # Nine digits are more than any machine holds, and int() takes long for many.
        if not (part.isascii() and part.isdigit() and len(part) <= 9 and int(part) > 0):
            raise UsageError(
                f"{option}: {shown(part)} is no whole number above 0 and below 10^9; "
                f"write {example}"
            )
    return tuple(int(part) for part in parts)


def parse_component(text: str, option: str) -> Mapping[str, Any]:
    """Return the table of a component that is given by name or as a table.

    Raises:
        UsageError: what looks like a table is none.
    """
    if not text.strip().startswith("{"):
        return {"use": text.strip()}
    try:
        parsed = parse_toml(f"value = {text.strip()}", option)
    except RecipeError:
        parsed = {}
    table = parsed.get("value")
    if len(parsed) != 1 or not isinstance(table, dict):
        raise UsageError(
            f"{option}: {shown(text)} is no TOML table; write a name, or a table such as "
            "'{ use = \"NAME\", setting = 1 }'"
        )
    return table
