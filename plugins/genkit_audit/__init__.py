"""``genkit audit``: what a coupling does to samples, to the noise and to classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Add the command."""
    from genkit_audit.audit_command import audit

    app.command()(audit)
