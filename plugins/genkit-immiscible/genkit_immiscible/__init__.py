"""Immiscible diffusion: each image meets the nearest of its own few noises (arXiv 2505.18521)."""

from __future__ import annotations

from genkit.plugin import Registration, hookimpl


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the coupler."""
    registry.add("coupler", "immiscible", "genkit_immiscible.nearest:Immiscible")
