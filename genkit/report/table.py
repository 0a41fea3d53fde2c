"""Score rows as people and plots read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

Row = Mapping[str, Any]
"""One line of scores: the settings that were varied by key path, then ``nfe`` and
``guidance_nfe``, the network calls for each sample of denoiser and guidance, then the scores."""

COUNTS = ("nfe", "guidance_nfe")


def settings_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns of the settings that were varied: those before the counts."""
    return list(dict.fromkeys(c for row in rows for c in takewhile(lambda c: c not in COUNTS, row)))


def render(rows: Sequence[Row]) -> Table:
    """Return the rows as a table; what a row lacks is left blank."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    columns = list(dict.fromkeys(c for row in rows for c in row))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(number(row[c]) if c in row else "" for c in columns))
    return table


def number(value: Any) -> str:
    """Return a cell: four significant digits for a float, anything else as it is."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)
