"""``genkit audit``: measure the effect of a coupling on samples, noise and classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the command ``genkit audit``."""
    from genkit_audit.audit_command import audit

    app.command()(audit)
