"""Tables of short strings, split into parts if a terminal is too narrow for all columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

Cells = Sequence[Sequence[str]]
"""Rows of strings; the first row is the header."""

GAP = 3
"""Number of terminal columns between two columns of a table."""

_WORD = 8  # min width of a header that is broken into lines


def grid(cells: Cells, justify: Literal["left", "right"], sections: bool = False) -> Table:
    """Return a table with a header and a left-aligned first column.

    Args:
        cells: header and rows.
        justify: alignment of the other columns.
        sections: whether a line separates consecutive rows that differ in the first column.
    """
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for index, head in enumerate(cells[0]):
        table.add_column(Text(head), justify=justify if index else "left", overflow="fold")
    for line, following in pairwise([*cells[1:], cells[0]]):
        table.add_row(*map(Text, line), end_section=sections and line[0] != following[0])
    return table


def fitting(cells: Cells, keys: int, width: int) -> Iterator[Cells]:
    """Yield a table in parts that fit the width of a terminal.

    A table of one row is transposed. Otherwise long headers are broken into lines, and the columns
    are distributed over as many parts as necessary.

    Args:
        cells: header and rows.
        keys: number of leading columns that identify a row and are repeated in all parts.
        width: width of the terminal in columns.
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
    """Return the width of a table in terminal columns."""
    columns = (max(map(len, "\n".join(column).split("\n"))) for column in zip(*cells, strict=True))
    return sum(width + GAP for width in columns) - GAP


def _broken(head: str, width: int) -> str:
    """Break a header at spaces into lines of a width; a word longer than the width stays whole."""
    lines = [""]
    for word in head.split(" "):
        if lines[-1] and len(lines[-1] + word) > width:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.rstrip() for line in lines)
