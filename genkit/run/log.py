"""Numbers over time, one JSON object a line, so that a killed run loses at most a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from genkit.files import write_text

METRICS = "metrics.jsonl"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the whole rows of a file; a last line that a kill cut off is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if isinstance(row, dict):
            rows.append(row)
    return rows


class RowLog:
    """Appends rows to a file.

    Args:
        path: of the file.
        keep: the rows from an earlier run that stay; the file is rewritten with them.
    """

    def __init__(self, path: Path, keep: list[dict[str, Any]]) -> None:
        self._path = path
        self.rows = keep
        write_text(path, "".join(_line(row) for row in keep))

    def add(self, row: dict[str, Any]) -> None:
        """Append one row and hand it to the system."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
