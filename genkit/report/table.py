"""Score rows as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table

from genkit.artifacts.scores import Row
from genkit.parts.figure import number


def render(rows: Sequence[Row]) -> Table:
    """Return the rows as a table; what a row lacks, or has as None, is left blank."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    columns = list(dict.fromkeys(c for row in rows for c in row))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*("" if row.get(c) is None else number(row[c]) for c in columns))
    return table
