"""One CSV file for a run, in long format: a line for each value."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genkit.artifacts import Scores
from genkit.files import write_text
from genkit.interfaces import BoundTracker, TrackedRun, Tracker
from genkit_track.values import flat

COLUMNS = ("stage", "kind", "row", "images", "name", "value")
"""``kind`` is ``row`` or ``score``; ``row`` numbers the rows of a stage and a kind from 0."""


@dataclass(frozen=True, kw_only=True)
class Csv(Tracker):
    """Write rows and scores to ``metrics.csv``, a line for each value.

    The columns are ``stage``, ``kind`` (``row`` or ``score``), ``row`` (its number), ``images``
    (seen in the training, empty elsewhere), ``name`` and ``value``. Lines are appended. A stage
    that resumes or is made anew first removes those of its lines that no longer hold, so that
    nothing is there twice. Pictures lie in the folders of the stages and are not repeated.
    """

    def open(self, run: TrackedRun) -> BoundTracker:
        return CsvFile(run.folder / "metrics.csv")


class CsvFile(BoundTracker):
    """The file of a run.

    Args:
        path: file to append to; written if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._keep(lambda _: True)

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self._keep(lambda line: line["stage"] != stage)
        self._rows[stage] = 0
        for row in rows:
            self.row(stage, row)

    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        number = self._rows.get(stage, 0)
        self._append(stage, "row", number, row)
        self._rows[stage] = number + 1

    def scores(self, stage: str, scores: Scores) -> None:
        self._keep(lambda line: (line["stage"], line["kind"]) != (stage, "score"))
        for number, row in enumerate(scores.rows):
            self._append(stage, "score", number, row)

    def picture(self, stage: str, name: str, png: bytes) -> None:
        return

    def _append(self, stage: str, kind: str, number: int, row: Mapping[str, Any]) -> None:
        values = flat(row)
        images = values.pop("images", None)
        lines = [(stage, kind, number, images, name, value) for name, value in values.items()]
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(_text(lines))

    def _keep(self, stays: Callable[[Mapping[str, str]], bool]) -> None:
        """Rewrite the file with the lines that stay; a last one that a kill cut off does not."""
        lines: list[Mapping[str, str]] = []
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            lines = [line for line in csv.DictReader(io.StringIO(whole)) if stays(line)]
        kept = [[line[column] for column in COLUMNS] for line in lines]
        write_text(self._path, _text([COLUMNS, *kept]))


def _text(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
