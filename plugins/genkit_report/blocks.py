"""The parts of a report: text, tables, charts and pictures, gathered into sections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Text:
    """A paragraph of plain text."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        title: caption of the table.
        head: name of each column.
        rows: cells of each row, as text.
        folded: whether only the title is shown until the reader opens it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing, with its data as a table for readers who cannot see it.

    Attributes:
        title: what is drawn, with the stage.
        svg: drawing, whose text has the color of the page.
        description: what the drawing shows, in a sentence.
        table: data of the drawing.
    """

    title: str
    svg: str
    description: str
    table: Table


@dataclass(frozen=True)
class Picture:
    """A picture of pixels.

    Attributes:
        title: what is shown, with the stage.
        png: file.
        description: what the picture shows, in a sentence.
        width: width in the page, in pixels; it shrinks with a narrow window.
    """

    title: str
    png: bytes
    description: str
    width: int = 640


@dataclass(frozen=True)
class Listing:
    """Lines of code, such as a recipe or a command.

    Attributes:
        title: what it is.
        text: lines.
    """

    title: str
    text: str


Block = Text | Table | Chart | Picture | Listing


@dataclass(frozen=True)
class Section:
    """A heading with its blocks."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def sections(made: Iterable[tuple[str, Callable[[], Iterable[Block]]]]) -> Iterator[Section]:
    """Yield the sections that have any block."""
    for title, build in made:
        if blocks := tuple(build()):
            yield Section(title, blocks)
