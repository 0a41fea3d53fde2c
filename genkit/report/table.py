"""Format tables of scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from genkit.artifacts.scores import MIN, STD, Row, scores_in, settings_of
from genkit.parts.figure import number, with_spread
from genkit.parts.text_table import fitting, grid


def render(rows: Sequence[Row], width: int) -> Iterator[Table]:
    """Yield the rows as tables that fit a terminal; missing values and None are blank.

    A score of several sets of samples is shown as mean and standard deviation. The min over the
    sets is written only to files.

    Args:
        rows: rows of scores.
        width: width of the terminal in columns.
    """
    settings = settings_of(rows)
    spread = {f"{name}{end}" for row in rows for name in scores_in(row) for end in (STD, MIN)}
    columns = [c for c in dict.fromkeys(c for row in rows for c in row) if c not in spread]
    lines = [[_cell(row, column) for column in columns] for row in rows]
    for cells in fitting([columns, *lines], len(settings), width):
        yield grid(cells, "right")


def _cell(row: Row, column: str) -> str:
    if (value := row.get(column)) is None:
        return ""
    deviation = row.get(f"{column}{STD}")
    return number(value) if deviation is None else with_spread(value, deviation)
