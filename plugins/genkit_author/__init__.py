"""Commands for authors of recipes: a JSON Schema for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the commands."""
    from genkit_author.schema_command import schema

    app.command()(schema)
