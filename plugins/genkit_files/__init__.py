"""Networks in files of their own: ``genkit sample``, ``genkit export`` and ``genkit import``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Add the commands that sample, write and import the files of networks."""
    from genkit_files.export import export
    from genkit_files.importing import import_edm, import_network
    from genkit_files.sample import sample

    app.command()(sample)
    app.command()(export)
    app.command("import")(import_network)
    app.command("import-edm")(import_edm)
