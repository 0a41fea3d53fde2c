"""Commands for files: ``genkit sample``, ``export``, ``stats``, ``verify`` and ``import``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the commands."""
    from genkit_files.export import export
    from genkit_files.importing import import_edm, import_network
    from genkit_files.sample import sample
    from genkit_files.stats import stats
    from genkit_files.verify import verify

    app.command()(sample)
    app.command()(export)
    app.command()(stats)
    app.command()(verify)
    app.command("import")(import_network)
    app.command("import-edm")(import_edm)
