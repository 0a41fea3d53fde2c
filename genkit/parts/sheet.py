"""Tables of strings for terminals of any width, without broken words."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.console import Console

from genkit.parts.text_table import GAP, Cells, grid

_READABLE = 24  # min width of a wrapped column, in terminal columns
_INDENT = 2


def print_sheet(console: Console, cells: Cells, keys: int = 1) -> None:
    """Print rows as a table, or as a list if the terminal is too narrow.

    Only the last column is wrapped, at spaces, so that names and paths can be copied.

    Args:
        console: console to print to.
        cells: header and rows; the last column has the longest strings.
        keys: number of leading columns that identify a row; in a list, they have no header.
    """
    widths = _widths(cells, console.width)
    if widths is None:
        for line in _list(cells, keys, console.width):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    wrapped = [[*row[:-1], _wrapped(row[-1], widths[-1])] for row in cells]
    console.print(grid(wrapped, "left"))


def _widths(cells: Cells, width: int) -> list[int] | None:
    """Return the widths of the columns of a table; None if the terminal is too narrow for one."""
    columns = ["\n".join(column).split("\n") for column in zip(*cells, strict=True)]
    widths = [max(map(cell_len, lines)) for lines in columns]
    # Only the last column is wrapped. The others contain names and values, which must not be broken
    # at their spaces.
    words = [word for line in columns[-1] for word in [*line.split(), ""]]
    least = max(*map(cell_len, words), min(_READABLE, widths[-1]))
    room = width - GAP * (len(widths) - 1) - sum(widths[:-1])
    return None if least > room else [*widths[:-1], min(widths[-1], room)]


def _list(cells: Cells, keys: int, width: int) -> Iterator[str]:
    """Yield the lines of a list, in which each cell follows the header of its column."""
    head, *rows = cells
    reach = max(map(cell_len, head[keys:])) + 2
    for row in rows:
        yield " ".join(filter(None, row[:keys]))
        *others, last = row[keys:]
        last = _wrapped(last, max(_READABLE, width - _INDENT - reach))
        for name, text in zip(head[keys:], [*others, last], strict=True):
            for index, line in enumerate(text.split("\n") if text else []):
                yield " " * _INDENT + set_cell_size("" if index else name, reach) + line


def _wrapped(text: str, width: int) -> str:
    """Return text that is wrapped at spaces to a width in terminal columns; words stay whole."""
    lines = []
    for line in text.split("\n"):
        first, *words = line.split(" ")
        lines.append(first)
        for word in words:
            if cell_len(f"{lines[-1]} {word}") > width:
                lines.append(word)
            else:
                lines[-1] += f" {word}"
    return "\n".join(lines)
