"""Flatten logged rows: values inside tables and lists get names such as ``parts/0``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from genkit.artifacts import Scores

Scalar = int | float | bool | str | None


def flat(row: Mapping[str, Any]) -> dict[str, Scalar]:
    """Return a dict from name to value of all scalars in a row, including nested ones."""
    return dict(_leaves(row, ""))


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return a dict from name to value of all numbers in a row, except the step ``images``."""
    return {
        name: float(value)
        for name, value in flat(row).items()
        if isinstance(value, (int, float)) and name != "images"
    }


def table_of(scores: Scores) -> tuple[list[str], list[list[Scalar]]]:
    """Return scores as a table: the names of the columns, and the values of each row."""
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
