"""Immiscible diffusion: each image gets the nearest of k noise samples (arXiv 2505.18521)."""

from __future__ import annotations

from genkit.plugin import Registration, hookimpl


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the coupler."""
    registry.add("coupler", "immiscible", "genkit_immiscible.nearest:Immiscible")
