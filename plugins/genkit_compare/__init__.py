"""``genkit runs`` and ``genkit compare``: list runs, and compare their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the commands ``genkit runs`` and ``genkit compare``."""
    from genkit_compare.compare_command import compare
    from genkit_compare.runs_command import runs

    app.command()(compare)
    app.command()(runs)
