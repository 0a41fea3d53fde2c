"""Estimate how far a whole run is, from the stage that runs."""

from __future__ import annotations

from collections.abc import Sequence


class Estimate:
    """Progress of a run whose stages are weighed by their work.

    Args:
        work: work of each stage in order, see :meth:`genkit.interfaces.Stage.work`.
    """

    def __init__(self, work: Sequence[float]) -> None:
        self._work = work
        self._seconds_each: float | None = None

    def percent(self, number: int, share: float) -> float | None:
        """Return the percentage of the run that is done; None where it is that of a stage.

        Args:
            number: number of the running stage, from 1; those before it are finished.
            share: part of it that is done, 0 to 1.
        """
        if sum(work > 0 for work in self._work) < 2:
            return None
        done = sum(self._work[: number - 1]) + share * self._work[number - 1]
        return 100 * done / sum(self._work)

    def left(self, number: int, share: float, left: float | None) -> float | None:
        """Return the seconds that are left of the run; None before a stage with work has a speed.

        Later stages are taken to be as fast as the newest one that was measured.

        Args:
            number: number of the running stage, from 1.
            share: part of it that is done, 0 to 1.
            left: seconds that are left of it; None where they are unknown.
        """
        if left is None:
            return None
        rest = (1 - share) * self._work[number - 1]
        if rest > 0:
            self._seconds_each = left / rest
        if self._seconds_each is None:
            return None
        return left + self._seconds_each * sum(self._work[number:])
