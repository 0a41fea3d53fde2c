"""One page for a run: all that it found, in one self-contained file.

``genkit run`` writes the page when a run ends, and ``genkit report`` at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Add the command that writes a report."""
    from genkit_report.report_command import report

    app.command()(report)


@hookimpl
def genkit_after_run(folder: Path) -> None:
    """Write the page of a run into its folder."""
    from genkit_report.report_command import PAGE, write_page

    write_page([folder], folder / PAGE)
