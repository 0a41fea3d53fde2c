"""Stages of a run, callbacks of the stage ``train``, and fitted schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from genkit.plugin import hookimpl

if TYPE_CHECKING:
    from genkit.plugin.registry import Registration


@hookimpl
def genkit_register(registry: Registration) -> None:
    """Register the stages, the callbacks and the schedule."""
    registry.add("stage", "train", "genkit_stages.train:Train")
    registry.add("stage", "load", "genkit_stages.load:Load")
    registry.add("stage", "average", "genkit_stages.average:AverageWeights")
    registry.add("stage", "sample", "genkit_stages.sample:Sample")
    registry.add("stage", "evaluate", "genkit_stages.evaluate:Evaluate")
    registry.add("stage", "sweep", "genkit_stages.sweep:Sweep")
    registry.add("stage", "fit-schedule", "genkit_stages.fit_schedule:FitSchedule")
    registry.add("schedule", "fitted", "genkit_stages.fitted:Fitted")
    registry.add("callback", "preview", "genkit_stages.preview:Preview")
    registry.add("callback", "score", "genkit_stages.score:Score")
