"""Semidiscrete optimal transport between noise and a whole data set (arXiv 2509.25519)."""

from __future__ import annotations

from genkit.plugin import Registration, hookimpl


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the stage that fits a potential, and the coupler that uses it."""
    registry.add("stage", "fit-potential", "genkit_semidiscrete.stage:FitPotential")
    registry.add("dataset-coupler", "semidiscrete", "genkit_semidiscrete.coupler:Semidiscrete")
