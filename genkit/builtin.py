"""What the core itself brings, registered as any plugin's components are."""

from __future__ import annotations

from genkit.plugin import hookimpl
from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the independent coupling, the default draws, and the stages."""
    registry.add("coupler", "random", "genkit.independent:Random")
    registry.add("latents", "derived", "genkit.latents:Derived")
    registry.add("stage", "train", "genkit.run.stages.train:Train")
    registry.add("stage", "load", "genkit.run.stages.load:Load")
    registry.add("stage", "sample", "genkit.run.stages.sample:Sample")
    registry.add("stage", "evaluate", "genkit.run.stages.evaluate:Evaluate")
    registry.add("stage", "sweep", "genkit.run.stages.sweep:Sweep")
