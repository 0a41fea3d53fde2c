"""Passes what stages record on to trackers, so that no tracker can stop or slow down a run.

Each tracker runs in a thread of its own, behind a queue. One that raises, that does not return, or
that falls too far behind is left out from then on, with one warning.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from genkit.artifacts import Scores
from genkit.artifacts.layout import TRACKERS
from genkit.interfaces import BoundTracker, TrackedRun, Tracker

QUEUED = 10_000
"""Calls that may wait for a tracker, a few minutes of a fast training."""

CALL_SECONDS = 60.0
"""How long one call may take while the run goes on."""

CLOSING_SECONDS = 10.0
"""How long the end of a run waits for one call. A longer wait would be felt."""


@dataclass
class Relay:
    """One tracker behind a queue; an :class:`~genkit.artifacts.record.Observer`.

    Args:
        name: what warnings call it.
        tracker: to open, in the thread.
        run: passed to it.
        warn: shows one line to the user.
    """

    name: str
    tracker: Tracker
    run: TrackedRun
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        self._calls: queue.Queue[Callable[[BoundTracker], None]] = queue.Queue(QUEUED)
        self._begun: float | None = time.monotonic()  # of the call that runs; None between calls
        self._failure = ""
        self._left_out = False
        self._thread = threading.Thread(target=self._work, daemon=True, name=f"tracker-{self.name}")
        self._thread.start()

    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        self._pass(lambda bound: bound.row(stage, row))

    def scores(self, stage: str, scores: Scores) -> None:
        self._pass(lambda bound: bound.scores(stage, scores))

    def picture(self, stage: str, name: str, png: bytes) -> None:
        self._pass(lambda bound: bound.picture(stage, name, png))

    def close(self) -> None:
        """Wait until all is passed on, as long as the tracker gets on with it."""
        self._pass(_close)
        while self._thread.is_alive() and not self._left_out:
            self._thread.join(0.05)
            self._require_alive(CLOSING_SECONDS)
        self._report()

    def _pass(self, call: Callable[[BoundTracker], None]) -> None:
        self._require_alive(CALL_SECONDS)
        if self._left_out:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._leave_out(f"is {QUEUED:,} calls behind")

    def _require_alive(self, seconds: float) -> None:
        """Leave the tracker out where it failed, or where its call takes longer than this."""
        self._report()
        begun = self._begun
        if begun is not None and time.monotonic() - begun > seconds:
            self._leave_out(f"has not returned for {seconds:g} s")

    def _report(self) -> None:
        if self._failure:
            self._leave_out(self._failure)

    def _leave_out(self, reason: str) -> None:
        if not self._left_out:
            self._left_out = True
            self.warn(f"tracker {self.name} {reason}; the run continues without it")

    def _work(self) -> None:
        """Open the tracker and make the calls, in the thread."""
        try:
            bound = self.tracker.open(self.run)
            call: Callable[[BoundTracker], None] | None = None
            while call is not _close and not self._left_out:
                self._begun = None
                call = self._calls.get()
                self._begun = time.monotonic()
                call(bound)
        except (Exception, SystemExit) as error:  # noqa: BLE001
            # Whatever a tracker raises: a full disk, no server, a mistake in its code.
            text = " ".join(str(error).split())[:300]
            self._failure = f"raised {type(error).__name__}: {text}"
        finally:
            self._begun = None


def _close(bound: BoundTracker) -> None:
    bound.close()


@contextmanager
def tracked(
    trackers: Sequence[tuple[str, Tracker]],
    run: TrackedRun,
    warn: Callable[[str], None],
) -> Iterator[list[Relay]]:
    """Open the trackers of a run, and close them when the block ends, also by an error.

    Args:
        trackers: with the name of each.
        run: run with its own folder; each tracker is passed one below its ``trackers/``.
        warn: shows one line to the user.
    """
    relays = [
        Relay(name, tracker, replace(run, folder=run.folder / TRACKERS / name), warn)
        for name, tracker in trackers
    ]
    try:
        yield relays
    finally:
        for relay in relays:
            relay.close()
