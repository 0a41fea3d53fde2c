"""List the runs in a folder, with their states, progress and best scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genkit.artifacts import Run, Scores
from genkit.artifacts.runs import is_locked, is_run
from genkit.artifacts.scores import scores_in
from genkit.errors import Code, DataError
from genkit.parts.figure import number
from genkit.parts.text_table import Cells

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@dataclass(frozen=True)
class Best:
    """Best value of the first score of a run that declares whether higher or lower is better.

    Attributes:
        score: name of the score.
        value: minimum over all rows, or maximum if higher is better.
        stage: id of the stage with this value.
    """

    score: str
    value: float
    stage: str


@dataclass(frozen=True)
class Entry:
    """State and progress of a run.

    Attributes:
        folder: folder of the run.
        state: ``finished``, ``running``, ``unfinished`` or ``damaged``.
        changed: time of the last change of a file, in seconds since 1970.
        recipe: name of the recipe; None if it cannot be read.
        stages: number of stages.
        finished: number of finished stages.
        stage: id of the first unfinished stage; None if all are finished.
        images: number of training images so far in the unfinished stage; None if it does not train.
        total: total number of training images of the unfinished stage.
        best: best score; None if there are no scores yet.
        reason: description of the damage; empty if the run is not damaged.
        error: error that ended the run, with its code; empty if there was none, or if the user
            stopped the run.
    """

    folder: Path
    state: str
    changed: float
    recipe: str | None = None
    stages: int = 0
    finished: int = 0
    stage: str | None = None
    images: int | None = None
    total: int | None = None
    best: Best | None = None
    reason: str = ""
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {**asdict(self), "folder": str(self.folder)}

    @property
    def progress(self) -> str:
        """Progress as text, such as ``2 of 4: denoiser, 5,120 of 60,000 images``."""
        if not self.stages:
            return ""
        if self.stage is None:
            return f"{self.stages} of {self.stages}"
        seen = "" if self.images is None else f", {self.images:,} of {self.total:,} images"
        return f"{self.finished + 1} of {self.stages}: {self.stage}{seen}"


def entries(folder: Path) -> list[Entry]:
    """Return the runs in a folder, sorted by name; if the folder is a run, only this run.

    Raises:
        OSError: the folder cannot be read.
    """
    if is_run(folder):
        return [_entry(folder)]
    runs = []
    for place in sorted(place for place in folder.iterdir() if place.is_dir()):
        try:
            if is_run(place):
                runs.append(_entry(place))
        except OSError as error:
            reason = f"{error.filename or place} cannot be read: {error.strerror}"
            runs.append(Entry(place, "damaged", place.stat().st_mtime, reason=reason))
    return runs


def _entry(folder: Path) -> Entry:
    try:
        run = Run.load(folder)
    except DataError as error:
        # When a run starts, it acquires the lock before it writes its recipe.
        running = is_locked(folder)
        reason = "" if running else str(error)
        return Entry(folder, "running" if running else "damaged", _changed(folder), reason=reason)
    reason, best = run.damage, None
    try:
        best = _best(run)
    except DataError as error:
        reason = reason or str(error)
    stopped = run.failure is not None and run.failure.code == Code.INTERRUPTED
    current = next((stage for stage in run.stages.values() if stage.state != "finished"), None)
    total = current.settings.get("images") if current else None
    images = current.images if current and isinstance(total, int) else None
    return Entry(
        folder,
        "damaged" if reason and run.state == "finished" else run.state,
        _changed(folder),
        run.name,
        len(run.stages),
        sum(stage.state == "finished" for stage in run.stages.values()),
        current.id if current else None,
        images,
        total if images is not None else None,
        best,
        reason,
        "" if stopped else str(run.failure or ""),
    )


def _changed(folder: Path) -> float:
    """Return the time of the last change of a run's files, in seconds since 1970."""
    times = [folder.stat().st_mtime]
    for path in (*folder.glob("*.json"), *folder.glob("[0-9][0-9]-*/*")):
        with suppress(FileNotFoundError):  # a running run may rename files at any time
            times.append(path.stat().st_mtime)
    return max(times)


def _best(run: Run) -> Best | None:
    """Return the best value, over all stages, of the first score that declares a direction."""
    best: Best | None = None
    for stage in run.stages.values():
        scores = stage.read(Scores) if stage.has(Scores) else Scores([])
        for row in scores.rows:
            for name in scores_in(row) if best is None else [best.score]:
                higher = scores.higher_is_better(name)
                if higher is None or name not in row:
                    continue
                sign = -1 if higher else 1
                if best is None or sign * row[name] < sign * best.value:
                    best = Best(name, row[name], stage.id)
                break
    return best


def table(runs: Sequence[Entry], now: float | None = None) -> Cells:
    """Return the cells of a table of runs.

    Args:
        runs: runs to list.
        now: time relative to which ages are computed, in seconds since 1970; None for the current
            time.
    """
    now = time.time() if now is None else now
    cells = [("run", "recipe", "state", "stage", "best score", "last change")]
    for entry in runs:
        best = entry.best
        score = f"{best.score} {number(best.value)} ({best.stage})" if best else ""
        age = f"{age_text(now - entry.changed)} ago"
        row = (entry.folder.name, entry.recipe or "", entry.state, entry.progress, score, age)
        cells.append(row)
    return cells


def age_text(seconds: float) -> str:
    """Return a duration in the largest suitable unit, such as ``3 h``."""
    name, size = next((unit for unit in _UNITS if seconds >= unit[1]), _UNITS[-1])
    return f"{max(0, int(seconds // size))} {name}"
