"""Pass rows, scores and pictures to trackers, such that no tracker can stop or slow down the run.

Each tracker runs in its own thread, and its calls are queued. A tracker that raises an error, does
not return, or is too slow is disabled with one warning. The main thread prints the warning at the
next call, so that it does not interrupt a progress line.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from genkit.artifacts import Scores
from genkit.artifacts.layout import TRACKERS
from genkit.interfaces import BoundTracker, TrackedRun, Tracker
from genkit.plugin.registry import Registry

QUEUED = 10_000
"""Max number of queued calls, enough for a few minutes of fast training. Chosen, not tuned."""

QUEUED_BYTES = 64 * 2**20
"""Max total size of queued pictures in bytes; a picture has about 10^5. Chosen, not tuned."""

CALL_SECONDS = 60.0
"""Max duration of a call during the run, in seconds. Chosen, not tuned."""

CLOSING_SECONDS = 10.0
"""Max time in seconds to wait for all trackers at the end of a run. Chosen, not tuned."""

THREAD = "genkit-tracker"

Call = Callable[[BoundTracker], None]


@dataclass
class Relay:
    """Queues the calls of a tracker; implements :class:`~genkit.artifacts.record.Observer`.

    Args:
        name: name of the tracker and its plugin, for warnings.
        tracker: tracker, which is opened in a new thread.
        run: run that is tracked.
        warn: function that prints a warning.
    """

    name: str
    tracker: Tracker
    run: TrackedRun
    warn: Callable[[str], None]

    def __post_init__(self) -> None:
        self._calls: queue.Queue[Call] = queue.Queue(QUEUED)
        self._begun: float | None = (
            time.monotonic()
        )  # start of the current call; None between calls
        self._failure = ""
        self._left_out = False
        # Each of the two is changed by only one thread, so that no lock is required.
        self._bytes_passed, self._bytes_taken = 0, 0
        self._thread = threading.Thread(target=self._work, daemon=True, name=THREAD)
        self._thread.start()

    # Arguments are copied, so that a tracker that modifies them cannot change results.

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        kept = list(rows)  # a copy, since the record appends to its list
        self._pass(lambda bound: bound.resume(stage, copy.deepcopy(kept)))

    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        self._pass(lambda bound: bound.row(stage, copy.deepcopy(row)))

    def scores(self, stage: str, scores: Scores) -> None:
        self._pass(lambda bound: bound.scores(stage, copy.deepcopy(scores)))

    def picture(self, stage: str, name: str, png: bytes) -> None:
        def call(bound: BoundTracker) -> None:
            self._bytes_taken += len(png)
            bound.picture(stage, name, png)

        self._bytes_passed += len(png)
        if self._bytes_passed - self._bytes_taken > QUEUED_BYTES:
            self._leave_out(f"is {QUEUED_BYTES / 2**20:g} MiB of pictures behind")
        self._pass(call)

    def finish(self) -> None:
        """Queue the closing of the tracker; disable the tracker if a call does not return."""
        self._require_alive(CLOSING_SECONDS)
        self._pass(_close)

    def wait(self, until: float) -> None:
        """Wait until the tracker is closed, or until ``time.monotonic()`` reaches ``until``."""
        self._thread.join(0 if self._left_out else max(0.0, until - time.monotonic()))
        self._report()
        if self._thread.is_alive():
            self._leave_out(f"did not finish within {CLOSING_SECONDS:g} s of the end")

    def _pass(self, call: Call) -> None:
        self._require_alive(CALL_SECONDS)
        if self._left_out:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._leave_out(f"is {QUEUED:,} calls behind")

    def _require_alive(self, seconds: float) -> None:
        """Disable the tracker if it failed, or if its current call has lasted too many seconds."""
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
            with self._calls.mutex:
                self._calls.queue.clear()
            self._calls.put_nowait(_close)  # in case the current call returns later
            self.warn(f"{self.name} {reason}; the run continues without it")

    def _work(self) -> None:
        """Open the tracker and make the queued calls. This is the function of the thread."""
        try:
            bound = self.tracker.open(self.run)
            call: Call | None = None
            while call is not _close:
                self._begun = None
                call = self._calls.get()
                self._begun = time.monotonic()
                call(bound)
        except BaseException as error:  # noqa: BLE001
            # Any error is possible: a full disk, no server, a bug, sys.exit. Even the method
            # __str__ of the error may raise one, which the traceback module handles.
            text = " ".join("".join(traceback.format_exception_only(error)).split())
            self._failure = f"raised {text[:300]}"
        finally:
            self._begun = None


def _close(bound: BoundTracker) -> None:
    bound.close()


@contextmanager
def open_trackers(
    trackers: Sequence[Tracker],
    run: TrackedRun,
    registry: Registry,
    warn: Callable[[str], None],
) -> Iterator[list[Relay]]:
    """Open the trackers of a run, and close them at the end of the block.

    Args:
        trackers: trackers with distinct names.
        run: run that is tracked; each tracker writes to its own folder below ``trackers/``.
        registry: registry with the trackers.
        warn: function that prints a warning.
    """
    relays = []
    for tracker in trackers:
        entry = registry.entry_of(tracker)
        own = replace(
            run, folder=run.folder / TRACKERS / entry.name, recipe=copy.deepcopy(run.recipe)
        )
        relays.append(Relay(str(entry), tracker, own, warn))
    try:
        yield relays
    finally:
        # All are closed concurrently, so that a tracker that hangs does not delay the others.
        until = time.monotonic() + CLOSING_SECONDS
        for relay in relays:
            relay.finish()
        for relay in relays:
            relay.wait(until)


def unfinished() -> bool:
    """Return whether the thread of a disabled tracker is still alive."""
    return any(thread.name == THREAD for thread in threading.enumerate())
