"""HTML report of a run: one self-contained page with its samples, scores, charts and settings.

``genkit run`` writes the report when a run ends, and ``genkit report`` writes it at any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from pathlib import Path

    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the command ``genkit report``."""
    from genkit_report.report_command import report

    app.command()(report)


@hookimpl
def genkit_after_run(folder: Path) -> None:
    """Write the report of a run to its folder."""
    from genkit_report.report_command import PAGE, write_page

    write_page([folder], folder / PAGE)
