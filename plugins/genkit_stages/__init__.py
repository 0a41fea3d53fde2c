"""The stages train, load, sample, evaluate and sweep, and the callbacks of train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Add the stages and the callbacks."""
    registry.add("stage", "train", "genkit_stages.train:Train")
    registry.add("stage", "load", "genkit_stages.load:Load")
    registry.add("stage", "sample", "genkit_stages.sample:Sample")
    registry.add("stage", "evaluate", "genkit_stages.evaluate:Evaluate")
    registry.add("stage", "sweep", "genkit_stages.sweep:Sweep")
    registry.add("callback", "preview", "genkit_stages.preview:Preview")
    registry.add("callback", "score", "genkit_stages.score:Score")
