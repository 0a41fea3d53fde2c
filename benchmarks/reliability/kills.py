"""Kill a run in the window of a save; the same command must then end with the same bytes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO
from unittest import mock

from runs import Outcome, Place, Tally, contents, spread

import genkit.files
import genkit_data.cache
from disk import Disk
from genkit import tensors
from genkit.artifacts import checkpoint
from genkit.artifacts.layout import CHECKPOINT, STATE, results_in, stage_folders
from genkit.artifacts.state import read_state

RUN = "killed"
INSIDE = 0.5
"""Share of the kills inside a write, after half of its bytes; half of these writes are checkpoints."""

TIMED = 0.2
"""Share of the kills at a random time, by another process."""


def kill(place: Place, count: int, *, in_place: bool = False) -> Tally:
    """Kill ``count`` runs, each of which is then run again.

    Args:
        place: folder in which the recipe runs.
        count: number of kills.
        in_place: whether files are overwritten in place, which loses runs: see :func:`unsafe`.
    """
    tally, moments = Tally(), random.Random(0)  # noqa: S311
    with unsafe() if in_place else contextlib.nullcontext():
        place.clean(RUN)
        begin = time.monotonic()
        operations = place.run(RUN, Disk(place.folder / RUN)).operations
        seconds = time.monotonic() - begin
        writes = [k for k, operation in enumerate(operations) if operation.kind == "write"]
        others = [k for k, operation in enumerate(operations) if operation.kind != "write"]
        timed = int(TIMED * count)
        saves = [k for k in writes if "checkpoint" in operations[k].path]
        inside = spread(saves, int(INSIDE * count) // 2)
        inside += spread(writes, int(INSIDE * count) - len(inside))
        for at in [*inside, *spread(others, count - timed - len(inside)), *[None] * timed]:
            place.clean(RUN)
            if at is None:
                process, outputs = place.start(*place.command(RUN))
                time.sleep(moments.uniform(0, seconds))
                os.kill(process, signal.SIGKILL)
                outcome, case = place.end((process, outputs)), "kill at a random time"
            else:
                outcome = place.run(RUN, Disk(place.folder / RUN, at))
                case = f"kill at operation {at}, {' '.join(operations[at])}"
            tally.add("killed" if outcome.code == -signal.SIGKILL else "finished before the kill")
            tally.add(*["inside a write"] * (at in writes))
            _continue(place, case, tally)
    return tally


def _continue(place: Place, case: str, tally: Tally) -> None:
    """Run a killed run again, and compare all results with those of a run that was not killed."""
    before = _finished(Path(RUN))
    outcome = place.run(RUN)
    same = contents(RUN) == place.wanted
    repeated = [path for path, time in before.items() if path.stat().st_mtime_ns != time]
    if not tally.require(outcome.code == 0 and same and not repeated, case, outcome):
        tally.add("lost")


def _finished(run: Path) -> Mapping[Path, int]:
    """Return a map from each result of a finished stage to the time of its last change."""
    return {
        folder / name: (folder / name).stat().st_mtime_ns
        for _, folder in stage_folders(run)
        if read_state(folder / STATE).get("finished") is True
        for name in results_in(folder)
    }


@contextlib.contextmanager
def unsafe() -> Iterator[None]:
    """Overwrite files in place, also the only checkpoint: the harness must detect the losses."""

    @contextlib.contextmanager
    def write(path: Path) -> Iterator[BinaryIO]:
        with path.open("wb") as file:
            yield file

    def save(
        folder: Path,
        state: Mapping[str, object],
        numbers: Mapping[str, float],
        described: Mapping[str, str],
        **_: bool,
    ) -> None:
        content = {"numbers": json.dumps(dict(numbers)), **described}
        tensors.save(folder / CHECKPOINT, state, content)

    with (
        mock.patch.object(genkit.files, "atomic_write", write),
        mock.patch.object(genkit_data.cache, "atomic_write", write),
        mock.patch.object(checkpoint, "save", save),
    ):
        yield


def signals(place: Place, count: int) -> Tally:
    """Send signals to runs at random times: each stops, and the next call continues it."""
    tally, moments = Tally(), random.Random(1)  # noqa: S311
    place.clean(RUN)
    begin = time.monotonic()
    place.run(RUN)
    seconds = time.monotonic() - begin
    for turn in range(count):
        number = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[turn % 3]
        place.clean(RUN)
        started = place.start(*place.command(RUN))
        time.sleep(moments.uniform(0, seconds))
        os.kill(started[0], number)
        outcome = place.end(started)
        case = f"{number.name} at a random time"
        # Before the run begins, a signal ends Python itself.
        stopped = outcome.code in (130, -number)
        tally.require(stopped or outcome.code == 0, case, outcome)
        tally.add("stopped" if stopped else "finished before the signal")
        _continue(place, case, tally)
    return tally


def races(place: Place, count: int, processes: int = 3) -> Tally:
    """Start several runs in one folder at once: one runs, the others are refused or follow it."""
    tally = Tally()
    for _ in range(count):
        place.clean(RUN)
        started = [place.start(*place.command(RUN)) for _ in range(processes)]
        outcomes = [place.end(each) for each in started]
        tally.add("races", *("refused" if outcome.code == 2 else "ran" for outcome in outcomes))
        for outcome in outcomes:
            expected = outcome.code == 0 or _in_use(outcome)
            tally.require(expected, "race for a folder", outcome)
        tally.require(any(outcome.code == 0 for outcome in outcomes), "race", outcomes[0])
        tally.require(contents(RUN) == place.wanted, "results after a race", outcomes[0])
    return tally


def _in_use(outcome: Outcome) -> bool:
    return outcome.refused and "is in use by a run" in outcome.err
