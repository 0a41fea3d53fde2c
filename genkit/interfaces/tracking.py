"""Bases of trackers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genkit.artifacts import Scores
from genkit.interfaces.base import Component


@dataclass(frozen=True)
class TrackedRun:
    """A run, as passed to a tracker.

    Attributes:
        name: name of the recipe.
        folder: folder for the tracker's files; need not exist.
        recipe: tables of the recipe, including all defaults.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]


class BoundTracker(ABC):
    """Result of :meth:`Tracker.open`. All calls come from one thread.

    It must write only below the folder of the run. Arguments are copies.
    """

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Receive the valid rows logged before the stage was resumed; empty for a new start.

        This is the first call for a stage that logs rows. All other rows of the stage that an
        earlier tracker received in the same folder are invalid.
        """
        return

    @abstractmethod
    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        """Receive a row of a stage: numbers, strings or lists by name.

        During training, ``images`` is the number of images so far.
        """

    @abstractmethod
    def scores(self, stage: str, scores: Scores) -> None:
        """Receive the scores of a stage."""

    @abstractmethod
    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Receive a picture of a stage; ``png`` is the content of a PNG file."""

    def close(self) -> None:
        """Flush and close all outputs. This is the last call."""
        return


class Tracker(Component):
    """Sends the rows, scores and pictures of a run to a dashboard or a file.

    A tracker changes no result and is not part of the fingerprint, so it can be added to a resumed
    run. It runs in a thread of rank 0 and must not write to the terminal. A tracker that raises, or
    that does not return for a minute, is disabled with one warning, and the run continues. At its
    end, a run waits at most ten seconds for the tracker.
    """

    @abstractmethod
    def open(self, run: TrackedRun) -> BoundTracker:
        """Return the tracker of a run, new or resumed."""
