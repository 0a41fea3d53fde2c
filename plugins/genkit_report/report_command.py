"""``genkit report``: reads runs and writes one HTML file. Heavy imports wait until it runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError

PAGE = "report.html"


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN ...", help="Folders of runs, of any state.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write; else report.html in the first run."),
    ] = None,
) -> None:
    """Write a page with samples, scores, charts and settings of runs."""
    if out is not None and out.suffix != ".html":
        raise UsageError(
            f"--out must end in .html, got {out}; write, for example, report.html",
            Code.UNKNOWN_CHOICE,
        )
    write_page(runs, out or runs[0] / PAGE)


def write_page(runs: Sequence[Path], path: Path) -> None:
    """Write the page of one run, or of several that are compared, and print its path.

    Raises:
        UsageError: a folder is not that of a run, or the page cannot be written.
        DataError: the recipe or the state of a run is missing or damaged.
    """
    from genkit.files import write_text
    from genkit.plugin import Run
    from genkit_report.page import render
    from genkit_report.view import View

    write_text(path, render([View(Run.load(folder)) for folder in runs]))
    typer.echo(f"Report: {path}")
