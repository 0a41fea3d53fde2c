"""Blocks of a report (texts, tables, charts, pictures and listings), and its sections."""

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
        rows: cells of each row, as strings.
        folded: whether the table is collapsed to its title until the reader opens it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A chart, with its data as a table for readers who cannot see it.

    Attributes:
        title: caption of the chart, which includes the stage.
        svg: chart as SVG, whose text has the color of the page's text.
        description: alternative text, one sentence.
        table: data of the chart.
    """

    title: str
    svg: str
    description: str
    table: Table


@dataclass(frozen=True)
class Picture:
    """A raster picture.

    Attributes:
        title: caption of the picture, which includes the stage.
        png: content of the PNG file.
        description: alternative text, one sentence.
        width: maximum width on the page, in pixels; the picture is smaller in a narrow window.
        smooth: whether the browser interpolates, as for plots; False for grids of small images.
    """

    title: str
    png: bytes
    description: str
    width: int = 640
    smooth: bool = False


@dataclass(frozen=True)
class Strip:
    """Pictures beside each other, in rows that fit the window.

    Attributes:
        title: caption of all pictures, which includes the stage.
        pictures: the pictures, each with its own caption.
    """

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Listing:
    """Preformatted text, such as a recipe or a command.

    Attributes:
        title: heading of the text.
        text: the text, with line breaks.
    """

    title: str
    text: str


Block = Text | Table | Chart | Picture | Strip | Listing


@dataclass(frozen=True)
class Section:
    """A section of a report: its heading and its blocks."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)


def sections(builders: Iterable[tuple[str, Callable[[], Iterable[Block]]]]) -> Iterator[Section]:
    """Yield the sections that have at least one block.

    Args:
        builders: heading of each section, and the function that returns its blocks.
    """
    for title, build in builders:
        if blocks := tuple(build()):
            yield Section(title, blocks)
