"""Trackers, which write the logged rows, scores and pictures of a run for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the trackers."""
    registry.add("tracker", "csv", "genkit_track.csv_file:Csv")
    registry.add("tracker", "tensorboard", "genkit_track.tensorboard:TensorBoard")
    registry.add("tracker", "wandb", "genkit_track.wandb:WandB")
