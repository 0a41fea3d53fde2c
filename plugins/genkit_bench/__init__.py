"""``genkit bench``, which measures the cost of components on this machine, and synthetic images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    import typer

    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the synthetic data set."""
    registry.add("dataset", "synthetic", "genkit_bench.synthetic:Synthetic")


@hookimpl
def genkit_commands(app: typer.Typer) -> None:
    """Register the command group ``genkit bench``."""
    from genkit_bench.commands import app as bench

    app.add_typer(bench, name="bench")
