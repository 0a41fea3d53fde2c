"""Estimate the progress of a whole run from the progress of the running stage."""

from __future__ import annotations

from collections.abc import Sequence


class Estimate:
    """Progress of a run whose stages are weighted by their work.

    Args:
        work: work of each stage in order, see :meth:`genkit.interfaces.Stage.work`.
    """

    def __init__(self, work: Sequence[float]) -> None:
        self._work = work
        self._seconds_each: float | None = None

    def percent(self, number: int, share: float) -> float | None:
        """Return the finished percentage of the run; None if fewer than two stages have work.

        Args:
            number: number of the running stage, from 1; earlier stages are finished.
            share: finished share of the stage, 0 to 1.
        """
        if sum(work > 0 for work in self._work) < 2:
            return None
        done = sum(self._work[: number - 1]) + share * self._work[number - 1]
        return 100 * done / sum(self._work)

    def left(self, number: int, left: float, whole: float) -> float | None:
        """Return the remaining seconds of the run; None if no speed was measured yet.

        The speed of later stages, in work per second, is assumed to be the last measured speed.

        Args:
            number: number of the running stage, from 1.
            left: remaining seconds of the running stage.
            whole: total seconds of the running stage at its present speed; 0 if unknown.
        """
        work = self._work[number - 1]
        if work > 0 and whole > 0:
            self._seconds_each = whole / work
        if self._seconds_each is None:
            return None
        return left + self._seconds_each * sum(self._work[number:])
