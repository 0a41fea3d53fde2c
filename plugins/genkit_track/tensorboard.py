"""The tracker ``tensorboard``: event files of TensorBoard.

torch's ``SummaryWriter`` is not used: it writes in a separate thread, where an error such as a full
disk prints a traceback. genkit already runs trackers in a thread, so this module directly uses the
record format and the protocol buffers of TensorBoard.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from genkit.artifacts import Scores
from genkit.errors import Problem
from genkit.interfaces import BoundTracker, Stages, TrackedRun, Tracker
from genkit.parts.packages import missing_packages
from genkit_track.values import numbers, table_of


@dataclass(frozen=True, kw_only=True)
class TensorBoard(Tracker):
    """Write event files, which ``tensorboard --logdir runs`` displays.

    Requires the package tensorboard (extra ``tensorboard``). Every stage is a separate run in
    TensorBoard, so that one chart, such as ``loss``, shows all stages and runs. The step is the
    number of training images so far; in stages that do not train, it is the index of the row.
    """

    def check(self, earlier: Stages) -> Iterator[Problem]:
        yield from missing_packages(["tensorboard"], "tensorboard")

    def open(self, run: TrackedRun) -> BoundTracker:
        return EventFiles(run.folder)


class EventFiles(BoundTracker):
    """The event files of a run, one for each stage.

    Args:
        folder: folder of the run, with a subfolder for each stage.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, EventFile] = {}

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            self._file(stage).row(row)

    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        self._file(stage).row(row)

    def scores(self, stage: str, scores: Scores) -> None:
        self._file(stage).scores(scores)

    def picture(self, stage: str, name: str, png: bytes) -> None:
        self._file(stage).picture(name, png)

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _file(self, stage: str) -> EventFile:
        if stage not in self._files:
            self._files[stage] = EventFile(self._folder / stage)
        return self._files[stage]


class EventFile:
    """The event file of a stage.

    Because of its first event, readers discard earlier files of the stage. So valid rows from
    before the run was resumed are written again.

    Args:
        folder: folder of the stage, which may contain files from before the run was resumed.
    """

    def __init__(self, folder: Path) -> None:
        self._events = import_module("tensorboard.compat.proto.event_pb2")
        self._summaries = import_module("tensorboard.compat.proto.summary_pb2")
        self._make = import_module("torch.utils.tensorboard.summary")
        folder.mkdir(parents=True, exist_ok=True)
        # Readers require this prefix, and read the files of a folder in the order of their names.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = import_module("torch.utils.tensorboard").RecordWriter(self._file)
        self._rows, self._step = 0, 0
        self._write(file_version="brain.Event:2")
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._write(step=0, session_log=start)

    def row(self, row: Mapping[str, Any]) -> None:
        """Write each number in a logged row as a scalar."""
        self._step = int(row.get("images", self._rows))
        self._rows += 1
        self._scalars(numbers(row), self._step)

    def scores(self, scores: Scores) -> None:
        """Write each score as a scalar, and all scores as a table."""
        for step, row in enumerate(scores.rows):
            self._scalars(numbers({"scores": row}), step)
        names, lines = table_of(scores)
        table: list[Sequence[object]] = [names, ["---"] * len(names), *lines]
        text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in table)
        self._write(step=0, summary=self._make.text("scores", text))

    def picture(self, name: str, png: bytes) -> None:
        """Write a picture with the step of the last row."""
        with Image.open(BytesIO(png)) as image:
            width, height, channels = *image.size, len(image.getbands())
        content = self._summaries.Summary.Image(
            width=width, height=height, colorspace=channels, encoded_image_string=png
        )
        value = self._summaries.Summary.Value(tag=name, image=content)
        self._write(step=self._step, summary=self._summaries.Summary(value=[value]))

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._write(step=step, summary=self._make.scalar(name, value))

    def _write(self, **content: Any) -> None:
        event = self._events.Event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())
        self._records.flush()
