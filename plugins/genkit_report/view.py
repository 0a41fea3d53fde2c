"""A run as a report reads it: settings, environment, and what each stage wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from genkit.artifacts.layout import ENVIRONMENT, METRICS, RECIPE, WARNINGS
from genkit.artifacts.record import read_rows
from genkit.plugin import Artifact, DataError, Run, SamplingCost, SamplingCosts, Scores, StageResult

A = TypeVar("A", bound=Artifact)
Row = Mapping[str, Any]


class View:
    """A run with the rows, scores and costs of its stages.

    Nothing that is missing or damaged stops a report: it is left out, and listed in
    :attr:`problems`.

    Args:
        run: run, of any state.

    Attributes:
        problems: what could not be read, and why.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.problems: list[str] = []

    @property
    def label(self) -> str:
        """Name of the run in titles and legends."""
        return self.run.folder.name or self.run.name

    @cached_property
    def recipe(self) -> str:
        """The recipe as it was given."""
        return self._text(self.run.folder / RECIPE)

    @cached_property
    def environment(self) -> Mapping[str, Any]:
        """Versions, hardware and command; empty where they were not written."""
        text = self._text(self.run.folder / ENVIRONMENT)
        with suppress(ValueError):
            found = json.loads(text)
            if isinstance(found, dict):
                return found
        return {}

    def stages(self, use: str | None = None) -> Iterator[StageResult]:
        """Yield the stages that have a folder, of one component or all."""
        for stage in self.run.stages.values():
            if stage.folder is not None and use in (None, stage.settings.get("use")):
                yield stage

    def rows(self, stage: StageResult, key: str) -> Sequence[Row]:
        """Return the logged rows of a stage that have a key."""
        if stage.folder is None:
            return ()
        return [row for row in read_rows(stage.folder / METRICS) if key in row]

    def read(self, stage: StageResult, artifact: type[A]) -> A | None:
        """Return what a stage wrote; None where it has no such file, or a damaged one."""
        if stage.folder is None or not (stage.folder / artifact.filename()).is_file():
            return None
        try:
            return artifact.load(stage.folder / artifact.filename())
        except DataError as error:
            self.problems.append(str(error))
            return None

    @cached_property
    def scores(self) -> Mapping[str, Scores]:
        """Scores by stage."""
        found = {stage.id: self.read(stage, Scores) for stage in self.stages()}
        return {stage: scores for stage, scores in found.items() if scores is not None}

    @property
    def warnings(self) -> Iterator[str]:
        """What the stages warned of."""
        for stage in self.stages():
            if stage.folder is not None:
                for row in read_rows(stage.folder / WARNINGS):
                    yield f"{stage.id}: {row.get('warning')}"

    def costs(self, stage: StageResult) -> Sequence[SamplingCost]:
        """Return what the samples behind a stage's rows cost; empty where it is unknown."""
        found = self.read(stage, SamplingCosts)
        return found.rows if found else ()

    def _text(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            self.problems.append(f"{path.name} cannot be read: {error.strerror}")
            return ""
