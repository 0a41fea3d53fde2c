"""``genkit doctor``: check the installation and this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the command."""
    from genkit_doctor.doctor_command import doctor

    app.command()(doctor)
