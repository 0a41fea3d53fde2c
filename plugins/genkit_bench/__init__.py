"""What components cost on this machine: ``genkit bench``, and images to measure with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer

    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the synthetic images."""
    registry.add("dataset", "synthetic", "genkit_bench.synthetic:Synthetic")


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Add the commands that measure couplers, training and sampling."""
    from genkit_bench.commands import app as bench

    app.add_typer(bench, name="bench")
