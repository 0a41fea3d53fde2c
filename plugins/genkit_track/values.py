"""Flatten rows: values inside tables and lists get names such as ``parts/0``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genkit.artifacts import Scores

Scalar = int | float | bool | str | None


def flat(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return all scalar values by name."""
    return dict(_leaves(row, ""))


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a row by name, without ``images``, which is the step."""
    return {
        name: float(value)
        for name, value in flat(row).items()
        if isinstance(value, (int, float)) and name != "images"
    }


def table_of(scores: Scores) -> tuple[list[str], list[list[Scalar]]]:
    """Return the names of the columns of scores, and a line for each row."""
    rows = [flat(row) for row in scores.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, [[row.get(name) for name in names] for row in rows]


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Scalar]]:
    prefix = f"{name}/" if name else ""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}{key}")
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{prefix}{index}")
    else:
        yield name, value
