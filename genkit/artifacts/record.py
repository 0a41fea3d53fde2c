"""Write rows, pictures, checkpoints and the artifact of a running stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from genkit.artifacts import checkpoint
from genkit.artifacts.artifact import Artifact
from genkit.artifacts.caption import captioned
from genkit.artifacts.checkpoint import Checkpoint, Numbers
from genkit.artifacts.cost import SamplingCost, SamplingCosts
from genkit.artifacts.layout import DURING_TRAINING, METRICS, WARNINGS, require_file_name
from genkit.artifacts.scores import Scores
from genkit.errors import PluginError
from genkit.files import named_errors, parse_json, read_text, write_bytes, write_text

Row = Mapping[str, Any]

Draw = Callable[[Artifact], Mapping[str, bytes]]
"""Function that draws pictures of an artifact, and returns a map from name to PNG content."""


class Observer(Protocol):
    """Object to which rows, scores and pictures are passed, such as a tracker."""

    def resume(self, stage: str, rows: Sequence[Row]) -> None:
        """Process the valid rows logged before the run was resumed; called before :meth:`row`."""
        ...

    def row(self, stage: str, row: Row) -> None:
        """Process a row of numbers."""
        ...

    def scores(self, stage: str, scores: Scores) -> None:
        """Process the scores of a stage."""
        ...

    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Process a picture."""
        ...


class Record:
    """Writes results to the folder of a running stage, and passes them to observers.

    On ranks other than 0 only :meth:`restore` has an effect.

    Args:
        stage: id of the stage.
        folder: folder of the stage.
        declared: type of artifact that the stage declares; None for a stage without an artifact.
        is_main: whether this process is rank 0.
        observers: trackers of the run.
        draw: function that draws pictures of an artifact when it is saved.
        called: name of the stage in messages.
        fingerprint: fingerprint of the stage, which its checkpoints contain.
        caption: text below every picture, after its name; empty for pictures without captions.
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
        fingerprint: str = "",
        caption: str = "",
    ) -> None:
        if declared is not None:
            require_file_name(declared)
        self.saved: Artifact | None = None
        """Artifact that the stage saved; None if it has not saved one yet."""
        self.stage = stage
        """Id of the stage."""
        self._folder = folder
        self._declared = declared
        self._is_main = is_main
        self._observers = observers
        self._draw = draw
        self.called = called
        self._fingerprint = fingerprint
        self._has_saved = False  # whether this process wrote the newest checkpoint
        self._caption = caption
        self._rows: list[Row] | None = None

    # --- rows ---------------------------------------------------------------------------

    def resume(self, keep: Callable[[Row], bool]) -> list[Row]:
        """Return the valid rows logged before the run was resumed; remove all others from the file.

        A stage calls this once, after it restored a checkpoint and before it logs: rows that were
        logged after the checkpoint would otherwise be repeated. If a stage does not call it, all
        earlier rows are removed.

        Args:
            keep: function that returns whether a row remains valid.
        """
        if not self._is_main:
            return []
        self._rows = [row for row in read_rows(self._folder / METRICS) if _is_kept(row, keep)]
        write_text(self._folder / METRICS, "".join(map(_line, self._rows)))
        for observer in self._observers:
            observer.resume(self.stage, self._rows)
        return list(self._rows)

    def restart(self) -> None:
        """Forget the rows and the artifact of a stage that runs from its beginning again."""
        self._rows, self.saved = None, None

    def log(self, row: Row) -> None:
        """Append a row of numbers to ``metrics.jsonl``.

        Raises:
            ValueError: a number is not finite.
        """
        if not self._is_main:
            return
        if self._rows is None:
            self.resume(lambda _: False)
        _append(self._folder / METRICS, row)
        self.rows.append(row)
        for observer in self._observers:
            observer.row(self.stage, row)

    @property
    def rows(self) -> list[Row]:
        """All valid rows in the file."""
        if self._rows is None:
            self._rows = []
        return self._rows

    def warn(self, text: str) -> None:
        """Append a warning to ``warnings.jsonl``, unless the file already contains it."""
        row = {"warning": text}
        if self._is_main and row not in read_rows(path := self._folder / WARNINGS):
            _append(path, row)

    # --- results ------------------------------------------------------------------------

    def save(self, artifact: Artifact) -> None:
        """Write the artifact of the stage, and pictures of it.

        Raises:
            PluginError: the artifact is not of the type that the stage declares.
        """
        declared = self._declared
        if declared is None or not isinstance(artifact, declared):
            wanted = declared.__name__ if declared else "none"
            raise PluginError(
                f"{self.called} must write the artifact that it declares as output, {wanted}, "
                f"got {type(artifact).__name__}; change the output or the artifact"
            )
        self._write(artifact, declared)
        self.saved = artifact

    def scores(self, scores: Scores) -> None:
        """Write scores, which any stage can write in addition to its artifact."""
        self._write(scores, Scores)

    def cost(self, *rows: SamplingCost) -> None:
        """Write the cost of samples: one row for the stage, or one row for each row of its scores.

        The file is not a result. It may be deleted, and its content may differ between runs.
        """
        self._write(SamplingCosts(rows), SamplingCosts)

    def _write(self, artifact: Artifact, declared: type[Artifact]) -> None:
        if not self._is_main:
            return
        # Readers use the file name of the declared type; a subclass may have a different one.
        artifact.save(self._folder / declared.filename())
        if isinstance(artifact, Scores):
            for observer in self._observers:
                observer.scores(self.stage, artifact)
        for name, png in self._draw(artifact).items():
            self.picture(name, png)

    def picture(self, name: str, png: bytes, keep: int | None = None) -> None:
        """Write a picture to the file ``NAME.png``, which replaces an earlier one.

        Args:
            name: name of the picture.
            png: content of the file.
            keep: number of training images, if a copy of the picture is kept that later pictures of
                this name do not replace.
        """
        if self._is_main:
            if self._caption:
                png = captioned(png, f"{name}: {self._caption}")
            write_bytes(self._folder / f"{name}.png", png)
            if keep is not None:
                (self._folder / DURING_TRAINING).mkdir(exist_ok=True)
                write_bytes(self._folder / DURING_TRAINING / f"{name}-{keep:010d}.png", png)
            for observer in self._observers:
                observer.picture(self.stage, name, png)

    def path(self, name: str) -> Path:
        """Return the path of a file of the stage."""
        return self._folder / name

    # --- checkpoints --------------------------------------------------------------------

    def checkpoint(
        self,
        state: Mapping[str, Tensor],
        numbers: Numbers,
        described: Mapping[str, str] | None = None,
    ) -> None:
        """Write a checkpoint atomically, and keep the previous one.

        Args:
            state: map from name to tensor, from which the stage resumes.
            numbers: map from name to number, from which the stage resumes.
            described: metadata of a network among the tensors, so that the network can be loaded
                before the stage ends: :meth:`genkit.artifacts.network.NetworkFile.metadata`, and
                ``prefix``, the prefix of the names of its weights.
        """
        if self._is_main:
            marked = {checkpoint.FINGERPRINT: self._fingerprint, **(described or {})}
            checkpoint.save(self._folder, state, numbers, marked, trusted=self._has_saved)
            self._has_saved = True

    def restore(self) -> Checkpoint | None:
        """Return the newest valid checkpoint; None if there is none.

        Raises:
            DamagedError: all checkpoints are damaged.
        """
        self._has_saved = False
        return checkpoint.load(self._folder)


def _is_kept(row: Row, keep: Callable[[Row], bool]) -> bool:
    """Return whether a row remains valid; False for a row that is damaged."""
    try:
        return keep(row)
    except (KeyError, TypeError):
        return False


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a file, without lines that are damaged or that a kill truncated.

    Raises:
        DataError: the path is a pipe, a device or a socket.
        OSError: the file cannot be read.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    for line in read_text(path).splitlines():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _append(path: Path, row: Row) -> None:
    line = _line(row)  # first, so that a row that is not finite creates no file
    with named_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(line)


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
