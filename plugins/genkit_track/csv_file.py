"""The tracker ``csv``: a CSV file of a run in long format, with one line per value."""

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
"""Columns of the file; ``kind`` is ``row`` or ``score``, and ``row`` is the index of the row, which
starts at 0 for each stage and kind."""


@dataclass(frozen=True, kw_only=True)
class Csv(Tracker):
    """Write logged rows and scores to ``metrics.csv``, with one line per value.

    The columns are ``stage``, ``kind`` (``row`` or ``score``), ``row`` (index of the row),
    ``images`` (number of training images so far; empty in stages that do not train), ``name`` and
    ``value``. Lines are appended. If a stage resumes or runs again, its outdated lines are removed
    first, so that no value occurs twice. Pictures are not copied, since the folders of the stages
    contain them.
    """

    def open(self, run: TrackedRun) -> BoundTracker:
        return CsvFile(run.folder / "metrics.csv")


class CsvFile(BoundTracker):
    """The CSV file of a run.

    Args:
        path: path of the file, which is created if it does not exist.
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
        """Rewrite the file with the lines to keep.

        An incomplete last line, from a run that was killed, is removed.
        """
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
