"""Commands for authors: a JSON Schema for editors, packages of plugins, and recipes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the commands."""
    from genkit_author.new_command import app as new
    from genkit_author.schema_command import schema

    app.command()(schema)
    app.add_typer(new, name="new")
