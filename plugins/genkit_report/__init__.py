"""One page for a run: ``genkit report`` writes all that it found into one self-contained file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Add the command that writes a report."""
    from genkit_report.report_command import report

    app.command()(report)
