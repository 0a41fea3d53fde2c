"""Tables of short texts, divided where a terminal is too narrow for all columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

Cells = Sequence[Sequence[str]]
"""Lines of texts; the first is the head."""

GAP = 3
"""Columns of a terminal between two columns of a table."""

_WORD = 8  # characters of a line of a broken head, at least


def grid(cells: Cells, justify: Literal["left", "right"], sections: bool = False) -> Table:
    """Return lines below a head; the first column is on the left.

    Args:
        cells: head and lines.
        justify: side of the other columns.
        sections: whether a rule separates lines that differ in the first column.
    """
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for index, head in enumerate(cells[0]):
        table.add_column(Text(head), justify=justify if index else "left", overflow="fold")
    for line, following in pairwise([*cells[1:], cells[0]]):
        table.add_row(*map(Text, line), end_section=sections and line[0] != following[0])
    return table


def fitting(cells: Cells, keys: int, width: int) -> Iterator[Cells]:
    """Yield a table in parts, each with as many columns as a terminal has room for.

    Long heads are broken first. A single line becomes a table of its own, with a line for each
    column.

    Args:
        cells: head and lines.
        keys: number of leading columns, which tell the lines apart and are in all parts.
        width: columns of the terminal.
    """
    columns = list(zip(*cells, strict=True))
    if width_of(cells) <= width:
        yield cells
        return
    if len(cells) == 2:
        yield [("name", "value"), *columns]
        return
    columns = [(_broken(head, max(_WORD, *map(len, lines))), *lines) for head, *lines in columns]
    part = columns[:keys]
    for column in columns[keys:]:
        if len(part) > keys and width_of(list(zip(*part, column, strict=True))) > width:
            yield list(zip(*part, strict=True))
            part = columns[:keys]
        part.append(column)
    yield list(zip(*part, strict=True))


def width_of(cells: Cells) -> int:
    """Return the width of a table in columns of a terminal."""
    columns = (max(map(len, "\n".join(column).split("\n"))) for column in zip(*cells, strict=True))
    return sum(width + GAP for width in columns) - GAP


def _broken(head: str, width: int) -> str:
    """Return a head in lines of a width, broken at spaces; a name that one types has none."""
    lines = [""]
    for word in head.split(" "):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.rstrip() for line in lines)
