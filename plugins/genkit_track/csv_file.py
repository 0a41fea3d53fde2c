"""The tracker csv: one CSV file for a run in long format, with a line for each value."""

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
"""``kind`` is ``row`` or ``score``; ``row`` is an index from 0 for each stage and kind."""


@dataclass(frozen=True, kw_only=True)
class Csv(Tracker):
    """Write rows and scores to ``metrics.csv``, a line for each value.

    The columns are ``stage``, ``kind`` (``row`` or ``score``), ``row`` (an index), ``images``
    (images seen in training, empty elsewhere), ``name`` and ``value``. Lines are appended. A stage
    that resumes or runs again first removes its outdated lines, so that no value is written twice.
    Pictures are not copied: they are in the folders of the stages.
    """

    def open(self, run: TrackedRun) -> BoundTracker:
        return CsvFile(run.folder / "metrics.csv")


class CsvFile(BoundTracker):
    """The file of a run.

    Args:
        path: file to append to; created if it does not exist.
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

    def _keep(self, is_kept: Callable[[Mapping[str, str]], bool]) -> None:
        """Rewrite the file with the lines to keep; an incomplete last line of a kill is removed."""
        lines: list[Mapping[str, str]] = []
        if self._path.exists():
            text = self._path.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            lines = [line for line in csv.DictReader(io.StringIO(whole)) if is_kept(line)]
        kept = [[line[column] for column in COLUMNS] for line in lines]
        write_text(self._path, _text([COLUMNS, *kept]))


def _text(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
