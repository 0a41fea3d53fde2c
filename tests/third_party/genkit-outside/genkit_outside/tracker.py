"""A tracker that writes a line of JSON for every call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from genkit.plugin import BoundTracker, Scores, TrackedRun, Tracker, setting


class BoundLines(BoundTracker):
    """A file of lines."""

    def __init__(self, run: TrackedRun, name: str) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        self._file = run.folder / name

    def _write(self, *line: Any) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        self._write("row", stage, dict(row))

    def scores(self, stage: str, scores: Scores) -> None:
        self._write("scores", stage, [dict(row) for row in scores.rows])

    def picture(self, stage: str, name: str, png: bytes) -> None:
        self._write("picture", stage, name, len(png))


@dataclass(frozen=True, kw_only=True)
class Lines(Tracker):
    """Writes rows, scores and the names of pictures to one file."""

    name: str = setting("lines.jsonl", doc="name of the file")

    def open(self, run: TrackedRun) -> BoundLines:
        return BoundLines(run, self.name)
