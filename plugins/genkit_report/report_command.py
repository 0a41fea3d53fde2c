"""``genkit report``: write one HTML page about one or several runs.

Slow imports are inside functions, so that they do not delay the start of other commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.terminal import writable

PAGE = "report.html"


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN", help="Folders of runs, of any state.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write, .html; by default report.html in the first run."
        ),
    ] = None,
) -> None:
    """Write an HTML page with the samples, scores, charts and settings of runs."""
    if out is not None and out.suffix != ".html":
        raise UsageError(
            f"--out must end in .html, got {out}; write, for example, report.html",
            Code.UNKNOWN_CHOICE,
        )
    places = [run.resolve() for run in runs]
    repeated = next((run for k, run in enumerate(runs) if places[k] in places[:k]), None)
    if repeated is not None:
        raise UsageError(
            f"RUN must not be repeated, got {repeated} twice; remove one", Code.DUPLICATE
        )
    write_page(runs, out or runs[0] / PAGE)


def write_page(runs: Sequence[Path], path: Path) -> None:
    """Write the report of one run, or the comparison of several runs, and print its path.

    Args:
        runs: folders of the runs.
        path: file to write.

    Raises:
        UsageError: a folder is not the folder of a run, or the page cannot be written.
    """
    from genkit.files import write_text
    from genkit_report.page import render
    from genkit_report.view import View

    names = [folder.name for folder in runs]
    # Folders of the same name, such as a/edm and b/edm, are labeled with their paths.
    labels = [str(folder) if names.count(folder.name) > 1 else "" for folder in runs]
    page = render([View.load(folder, label) for folder, label in zip(runs, labels, strict=True)])
    with writable("--out", path):
        write_text(path, page)
    typer.echo(f"Report: {path}")
