"""What a running stage writes: rows, pictures, its artifact and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from genkit.artifacts import checkpoint
from genkit.artifacts.artifact import Artifact
from genkit.artifacts.checkpoint import Checkpoint, Numbers
from genkit.artifacts.cost import SamplingCost, SamplingCosts
from genkit.artifacts.layout import METRICS, require_file_name
from genkit.artifacts.scores import Scores
from genkit.errors import PluginError
from genkit.files import named_errors, write_bytes, write_text

Row = Mapping[str, Any]

Draw = Callable[[Artifact], Mapping[str, bytes]]
"""Returns PNG files that show an artifact, by name."""


class Observer(Protocol):
    """Receiver of rows, scores and pictures, such as a tracker."""

    def resume(self, stage: str, rows: Sequence[Row]) -> None:
        """Take the rows of earlier calls that stay, before any other row of the stage."""
        ...

    def row(self, stage: str, row: Row) -> None:
        """Take a row of numbers."""
        ...

    def scores(self, stage: str, scores: Scores) -> None:
        """Take the scores of a stage."""
        ...

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Take a picture."""
        ...


class Record:
    """What a running stage writes, to its folder and to the observers of the run.

    In a process other than rank 0 every call does nothing, except :meth:`restore`.

    Args:
        stage: id of the stage.
        folder: folder of the stage.
        declared: type of the artifact that it declares; None for a stage that writes none.
        is_main: whether this process is rank 0.
        observers: trackers of the run.
        draw: pictures of artifacts, drawn when these are saved.
        called: how messages name the stage.
    """

    def __init__(
        self,
        stage: str,
        folder: Path,
        declared: type[Artifact] | None,
        *,
        is_main: bool = True,
        observers: Sequence[Observer] = (),
        draw: Draw = lambda _: {},
        called: str = "the stage",
    ) -> None:
        if declared is not None:
            require_file_name(declared)
        self.saved: Artifact | None = None
        """The artifact that was saved."""
        self._stage = stage
        self._folder = folder
        self._declared = declared
        self._is_main = is_main
        self._observers = observers
        self._draw = draw
        self.called = called
        self._rows: list[Row] | None = None

    # --- rows ---------------------------------------------------------------------------

    def resume(self, keep: Callable[[Row], bool]) -> list[Row]:
        """Return the rows of earlier calls that stay, and drop the others from the file.

        A stage calls it once, before it logs, with what it restored: rows that a kill left behind
        its last checkpoint would otherwise be there twice. Without the call no row stays.
        """
        if not self._is_main:
            return []
        self._rows = [row for row in read_rows(self._folder / METRICS) if keep(row)]
        write_text(self._folder / METRICS, "".join(map(_line, self._rows)))
        for observer in self._observers:
            observer.resume(self._stage, self._rows)
        return list(self._rows)

    def log(self, row: Row) -> None:
        """Append a row of numbers to ``metrics.jsonl``.

        Raises:
            ValueError: a number is not finite.
        """
        if not self._is_main:
            return
        if self._rows is None:
            self.resume(lambda _: False)
        line = _line(row)
        path = self._folder / METRICS
        with named_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(line)
        self.rows.append(row)
        for observer in self._observers:
            observer.row(self._stage, row)

    @property
    def rows(self) -> list[Row]:
        """All rows that are in the file."""
        if self._rows is None:
            self._rows = []
        return self._rows

    # --- results ------------------------------------------------------------------------

    def save(self, artifact: Artifact) -> None:
        """Write the artifact of the stage, and draw it.

        Raises:
            PluginError: it is not of the type that the stage declares.
        """
        declared = self._declared
        if declared is None or not isinstance(artifact, declared):
            wanted = declared.__name__ if declared else "nothing"
            raise PluginError(
                f"{self.called} must write what it declares as output, {wanted}, "
                f"got {type(artifact).__name__}; change one of the two"
            )
        self._write(artifact, declared)
        self.saved = artifact

    def scores(self, scores: Scores) -> None:
        """Write scores, which any stage may have besides its artifact."""
        self._write(scores, Scores)

    def cost(self, *rows: SamplingCost) -> None:
        """Write what samples cost, a row for those of the stage, or for each row of its scores.

        The file is no result: it may be deleted, and its bytes may differ.
        """
        self._write(SamplingCosts(rows), SamplingCosts)

    def _write(self, artifact: Artifact, declared: type[Artifact]) -> None:
        if not self._is_main:
            return
        # Readers know the declared type alone: a subclass may have a file name of its own.
        artifact.save(self._folder / declared.filename())
        if isinstance(artifact, Scores):
            for observer in self._observers:
                observer.scores(self._stage, artifact)
        for name, png in self._draw(artifact).items():
            self.picture(name, png)

    def picture(self, name: str, png: bytes) -> None:
        """Write ``NAME.png``."""
        if self._is_main:
            write_bytes(self._folder / f"{name}.png", png)
            for observer in self._observers:
                observer.picture(self._stage, name, png)

    def path(self, name: str) -> Path:
        """Return where a file of the stage lies."""
        return self._folder / name

    # --- checkpoints --------------------------------------------------------------------

    def checkpoint(
        self,
        state: Mapping[str, Tensor],
        numbers: Numbers,
        described: Mapping[str, str] | None = None,
    ) -> None:
        """Write a checkpoint, in one step; the one before it is kept.

        Args:
            state: tensors from which to resume.
            numbers: numbers from which to resume.
            described: metadata of a network that is among the tensors, so that it can be used
                before the stage ends: :meth:`genkit.artifacts.network.NetworkFile.metadata`, and
                ``prefix``, with which the names of its weights begin.
        """
        if self._is_main:
            checkpoint.save(self._folder, state, numbers, described or {})

    def restore(self) -> Checkpoint | None:
        """Return the newest sound checkpoint; None where there is none.

        Raises:
            DataError: all checkpoints are damaged.
        """
        return checkpoint.load(self._folder)


def read_rows(path: Path) -> list[Row]:
    """Return the whole rows of a file; a last line that a kill cut off is left out."""
    if not path.exists():
        return []
    rows: list[Row] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
