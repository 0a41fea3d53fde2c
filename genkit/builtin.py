"""Components of the core, registered like those of a plugin."""

from __future__ import annotations

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the independent coupling and the default draws."""
    registry.add("coupler", "random", "genkit.independent:Random")
    registry.add("latents", "derived", "genkit.latents:Derived")
