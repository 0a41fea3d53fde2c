"""Tables of texts for terminals of any width, without broken words."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.console import Console

from genkit.parts.text_table import GAP, Cells, grid

_READABLE = 24  # min width of a long text in a table
_INDENT = 2


def print_sheet(console: Console, cells: Cells, keys: int = 1) -> None:
    """Print rows as a table, or as a list if the terminal is too narrow.

    Words are never broken, so that names can be copied.

    Args:
        console: console to print to.
        cells: header and rows; the last column has the longest texts.
        keys: number of leading columns that identify a row; the list has no header for them.
    """
    widths = _widths(cells, console.width)
    if widths is None:
        for line in _list(cells, keys, console.width):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    wrapped = [
        [_wrapped(text, space) for text, space in zip(row, widths, strict=True)] for row in cells
    ]
    console.print(grid(wrapped, "left"))


def _widths(cells: Cells, width: int) -> list[int] | None:
    """Return the widths of the columns of a table; None if the terminal is too narrow for one."""
    columns = ["\n".join(column).split("\n") for column in zip(*cells, strict=True)]
    widths = [max(map(len, lines)) for lines in columns]
    minima = [max(len(word) for line in lines for word in [*line.split(), ""]) for lines in columns]
    minima[-1] = max(minima[-1], min(_READABLE, widths[-1]))
    room = width - GAP * (len(widths) - 1)
    if sum(minima) > room:
        return None
    while sum(widths) > room:
        # Shrink the column that is widest relative to its min.
        index = max(range(len(widths)), key=lambda k: widths[k] - minima[k])
        widths[index] -= 1
    return widths


def _list(cells: Cells, keys: int, width: int) -> Iterator[str]:
    """Yield the lines of a list, in which each text follows the header of its column."""
    head, *rows = cells
    reach = max(len(name) for name in head[keys:]) + 2
    for row in rows:
        yield " ".join(filter(None, row[:keys]))
        for name, text in zip(head[keys:], row[keys:], strict=True):
            lines = _wrapped(text, max(_READABLE, width - _INDENT - reach)).split("\n")
            for index, line in enumerate(lines if text else []):
                yield " " * _INDENT + f"{'' if index else name:<{reach}}{line}".rstrip()


def _wrapped(text: str, width: int) -> str:
    """Return a text wrapped to a width; longer words are not broken."""
    lines: Sequence[str] = [
        part
        for line in text.split("\n")
        for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False)
        or [""]
    ]
    return "\n".join(lines)
