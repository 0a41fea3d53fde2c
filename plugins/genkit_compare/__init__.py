"""Runs side by side: ``genkit runs`` lists them, ``genkit compare`` compares their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Add the commands that read finished and unfinished runs."""
    from genkit_compare.compare_command import compare
    from genkit_compare.runs_command import runs

    app.command()(compare)
    app.command()(runs)
