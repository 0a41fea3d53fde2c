"""The content of a run for a report: settings, environment, and the output of each stage."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from genkit.artifacts.layout import (
    ENVIRONMENT,
    METRICS,
    RECIPE,
    RESOLVED,
    STATE,
    WARNINGS,
    stages_in,
)
from genkit.artifacts.record import read_rows
from genkit.artifacts.state import changed_logs, read_state
from genkit.files import parse_json, read_text
from genkit.plugin import Artifact, DataError, Run, SamplingCost, SamplingCosts, Scores, StageResult

A = TypeVar("A", bound=Artifact)
Row = Mapping[str, Any]


class View:
    """A run with the logged rows, scores and costs of its stages.

    A file that is missing or damaged is omitted from the report, and described in
    :attr:`problems`.

    Args:
        run: run, in any state.
        label: name of the run in titles and legends; by default the name of its folder.

    Attributes:
        problems: description of each file that could not be read.
    """

    def __init__(self, run: Run, label: str = "") -> None:
        self.run = run
        self.label = label or run.folder.name or run.name
        self.problems: list[str] = []
        self._rows: dict[str, list[Row]] = {}

    @classmethod
    def load(cls, folder: Path, label: str = "") -> View:
        """Read a run. If its recipe is missing or damaged, the stages are those with a folder.

        Raises:
            UsageError: the folder is not the folder of a run.
        """
        try:
            view = cls(Run.load(folder), label)
        except DataError as error:
            stages = {name: StageResult(name, {}, at) for name, at in stages_in(folder).items()}
            view = cls(Run(folder, folder.name, {}, stages), label)
            view.problems.append(str(error))
        view.problems += view.run.damaged.values()
        for stage in view.stages():
            view.problems += stage.damaged.values()
            if stage.folder is not None:
                changed = changed_logs(stage.folder, read_state(stage.folder / STATE))
                view.problems += [f"{path} differs from what was written" for path in changed]
        if not read_state(folder / STATE):
            view.problems.append(
                f"{STATE} is missing or damaged, so it is unknown whether the last call failed; "
                "run the recipe again"
            )
        return view

    @cached_property
    def recipe(self) -> str:
        """The recipe as the user wrote it; empty if it cannot be read."""
        return self._text(self.run.folder / RECIPE)

    @cached_property
    def resolved(self) -> str:
        """The recipe that ran, with all defaults and every ``--set``; empty if it is unreadable."""
        return self._text(self.run.folder / RESOLVED)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Versions, hardware and command; empty if they were not recorded."""
        text = self._text(self.run.folder / ENVIRONMENT)
        with suppress(ValueError):
            found = parse_json(text)
            if isinstance(found, dict):
                return found
        return {}

    def stages(self, use: str | None = None) -> Iterator[StageResult]:
        """Yield the stages that have a folder: all, or those of the component ``use``."""
        for stage in self.run.stages.values():
            if stage.folder is not None and use in (None, stage.settings.get("use")):
                yield stage

    def rows(self, stage: StageResult, key: str, *others: str) -> Sequence[Row]:
        """Return the logged rows of a stage that contain a key.

        Args:
            stage: stage that logged.
            key: key of the rows.
            others: further keys that these rows contain. A row is omitted as damaged if the value
                of a key is not a finite number; or, for keys that end in ``by_sigma``, not a dict
                from number to finite number.
        """
        if stage.folder is None:
            return ()
        path = stage.folder / METRICS
        if stage.id not in self._rows:
            self._rows[stage.id] = []
            with self._reading(path):
                self._rows[stage.id] = read_rows(path)
        rows = [row for row in self._rows[stage.id] if key in row]
        valid = [row for row in rows if all(_is_valid(row, name) for name in (key, *others))]
        if len(valid) < len(rows):
            self._report(
                f"{path}: {len(rows) - len(valid)} of {len(rows)} rows with {key} are damaged and "
                "omitted"
            )
        return valid

    def read(self, stage: StageResult, artifact: type[A]) -> A | None:
        """Return an artifact of a stage; None if its file is missing or damaged."""
        name = artifact.filename()
        if stage.folder is None or not (stage.folder / name).is_file() or name in stage.damaged:
            return None
        with self._reading(stage.folder / name):
            return artifact.load(stage.folder / name)
        return None

    @cached_property
    def scores(self) -> Mapping[str, Scores]:
        """Dict from the id of each scoring stage to its scores."""
        found = {stage.id: self.read(stage, Scores) for stage in self.stages()}
        return {stage: scores for stage, scores in found.items() if scores is not None}

    @property
    def warnings(self) -> Iterator[str]:
        """Warnings of all stages, each once, with the ids of its stages."""
        ids_by_text: dict[str, dict[str, None]] = {}
        for stage in self.stages():
            if stage.folder is not None:
                rows: list[Row] = []
                with self._reading(stage.folder / WARNINGS):
                    rows = read_rows(stage.folder / WARNINGS)
                for row in rows:
                    ids_by_text.setdefault(str(row.get("warning")), {})[stage.id] = None
        for text, ids in ids_by_text.items():
            yield f"{', '.join(ids)}: {text}"

    def costs(self, stage: StageResult) -> Sequence[SamplingCost]:
        """Return the cost of the samples of each row of a stage; empty if it was not recorded."""
        found = self.read(stage, SamplingCosts)
        return found.rows if found else ()

    def _text(self, path: Path) -> str:
        with self._reading(path):
            return read_text(path)
        return ""

    @contextmanager
    def _reading(self, path: Path) -> Iterator[None]:
        """Report a file that cannot be read in the block, and end the block."""
        try:
            yield
        except DataError as error:
            self._report(str(error))
        except OSError as error:
            self._report(f"{path} cannot be read: {error.strerror}")

    def _report(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)


def _is_valid(row: Row, key: str) -> bool:
    value = row.get(key)
    if not key.endswith("by_sigma"):
        return is_number(value)
    return isinstance(value, Mapping) and all(
        _is_number_as_text(sigma) and is_number(loss) for sigma, loss in value.items()
    )


def is_number(value: Any) -> bool:
    """Return whether a value of a log is a finite number."""
    try:
        return isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer beyond the range of a float
        return False


def _is_number_as_text(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
