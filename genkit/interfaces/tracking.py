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
    """The run of a tracker.

    Attributes:
        name: name of the recipe.
        folder: folder for the tracker's files; need not exist.
        recipe: the recipe with all defaults, as tables.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]


class BoundTracker(ABC):
    """Result of :meth:`Tracker.open`. All calls come from one thread.

    It must write only below the folder of the run. Arguments are copies.
    """

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Receive the rows of earlier calls that remain valid; none if the stage starts over.

        The first call for a stage that logs rows. Other rows that an earlier tracker in the same
        folder received for this stage are invalid.
        """
        return

    @abstractmethod
    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        """Receive a row of a stage: numbers, text or lists by name.

        In a training, ``images`` is the number of images so far.
        """

    @abstractmethod
    def scores(self, stage: str, scores: Scores) -> None:
        """Receive the scores of a stage."""

    @abstractmethod
    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Receive a picture, a PNG file."""

    def close(self) -> None:
        """Flush and close; the last call."""
        return


class Tracker(Component):
    """Sends the rows, scores and pictures of a run to a dashboard or a file.

    A tracker changes no result and is not part of the fingerprint, so it can be added to a resumed
    run. It runs in a thread of rank 0 and must not write to the terminal. A tracker that raises, or
    that does not return for a minute, is disabled with one warning, and the run continues. The end
    of a run waits for it at most ten seconds.
    """

    @abstractmethod
    def open(self, run: TrackedRun) -> BoundTracker:
        """Return the tracker of a run, new or resumed."""
