"""``genkit compare``: parse arguments, compare and print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genkit.errors import Code, UsageError
from genkit.files import write_bytes
from genkit.terminal import console, json_mistakes, writable

if TYPE_CHECKING:
    from genkit_compare.tables import Comparison

PICTURES = (".png", ".svg")


@json_mistakes
def compare(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN RUN ...", help="Folders of runs, or RUN/STAGE for one stage of a run."
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Score to compare and plot; by default all are compared and the first is plotted.",
        ),
    ] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one line per row.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the Markdown, CSV or JSON to a file."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a plot of the score against the cost of a sample, .png or .svg.",
        ),
    ] = None,
) -> None:
    """Compare the settings, scores and costs of runs."""
    formats = as_markdown + as_csv + as_json
    if formats > 1 or (out is not None and not formats):
        number = "one" if out is not None else "at most one"
        raise UsageError(
            f"--markdown, --csv and --json must be {number} format, got {formats or 'none'}; "
            "write, for example, --csv --out scores.csv",
            Code.CONFLICT,
        )
    if plot is not None and plot.suffix not in PICTURES:
        raise UsageError(
            f"--plot must end in .png or .svg, got {plot}; write, for example, fid.png",
            Code.UNKNOWN_CHOICE,
        )
    for option, file in (("--out", out), ("--plot", plot)):
        if file is not None and file.exists():
            raise UsageError(
                f"{option} must be a new file, got {file}; move it away, or write another name",
                Code.OCCUPIED,
            )

    from genkit_compare.comparison import make_tables
    from genkit_compare.selection import group_stages, select
    from genkit_compare.settings import differences
    from genkit_compare.tables import Comparison, as_text, show

    selections = select(runs or [])
    tables, exclusions = make_tables(group_stages(selections), score)
    by_label = {selection.label: selection.run for selection in selections}
    comparison = Comparison(by_label, differences(list(by_label.values())), tables, exclusions)
    for exclusion in exclusions:
        typer.echo(f"Not compared: {exclusion}", err=True)
    if plot is not None:
        _plot(comparison, score, plot)
    if not formats:
        show(console(), comparison)
        return
    text = as_text(comparison, "markdown" if as_markdown else "csv" if as_csv else "json")
    if out is None:
        typer.echo(text, nl=False)
    else:
        _write(out, text.encode(), "--out")


def _plot(comparison: Comparison, score: str | None, file: Path) -> None:
    """Write a plot of a score, from the table with this score that has the most rows."""
    from genkit_compare.plot import score_plot

    name = score or comparison.tables[0].scores[0]
    tables = [table for table in comparison.tables if name in table.scores]
    longest = max(tables, key=lambda table: len(table.rows))
    _write(file, score_plot(longest, name, file.suffix.removeprefix(".")), "--plot")


def _write(file: Path, content: bytes, option: str) -> None:
    with writable(option, file):
        write_bytes(file, content)
