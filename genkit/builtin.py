"""Register the components of the core, in the same way as a plugin."""

from __future__ import annotations

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the independent coupling and the default random draws of samples."""
    registry.add("coupler", "random", "genkit.independent:Random")
    registry.add("latents", "derived", "genkit.latents:Derived")
