"""Semidiscrete optimal transport: noise finds its image among all of them (arXiv 2509.25519)."""

from __future__ import annotations

from genkit.plugin import Registration, hookimpl


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the stage that fits a potential, and the coupler that uses it."""
    registry.add("stage", "fit-potential", "genkit_semidiscrete.stage:FitPotential")
    registry.add("dataset-coupler", "semidiscrete", "genkit_semidiscrete.coupler:Semidiscrete")
