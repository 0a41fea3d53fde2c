"""``genkit report``: reads runs and writes one HTML file. Heavy imports wait until it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError


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
    from genkit.files import write_text
    from genkit.plugin import Run
    from genkit_report.page import render
    from genkit_report.view import View

    if out is not None and out.suffix != ".html":
        raise UsageError(
            f"--out must end in .html, got {out}; write, for example, report.html",
            Code.UNKNOWN_CHOICE,
        )
    views = [View(Run.load(folder)) for folder in runs]
    path = out or runs[0] / "report.html"
    write_text(path, render(views))
    typer.echo(f"{path}: the report of {', '.join(view.label for view in views)}")
