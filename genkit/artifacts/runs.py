"""Read run folders: the stages of a run, their progress and their artifacts.

:mod:`genkit.run` writes them; this module writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import filelock

from genkit.artifacts.artifact import Artifact
from genkit.artifacts.layout import LOCK, METRICS, RESOLVED, STATE, stages_in
from genkit.artifacts.samples import Samples
from genkit.artifacts.scores import Scores
from genkit.artifacts.state import FILES, damages, read_state
from genkit.errors import Code, DataError, UsageError
from genkit.files import parse_json, read_toml
from genkit.notebook import html_picture, html_table
from genkit.settings import near_match, quote

A = TypeVar("A", bound=Artifact)

_ROWS_SHOWN = 20  # of a sweep, in a notebook
_TAIL = 65_536  # bytes at the end of a log that are searched for the last number of images


@dataclass(frozen=True)
class StageResult:
    """A stage of a run, read from its folder.

    Attributes:
        id: id of the stage.
        settings: table of the stage in the recipe, with all defaults.
        folder: folder of the stage; None before the stage starts.
        state: ``finished`` if the stage is finished and no result is damaged; ``damaged`` if a
            result is missing, has a different size, or, up to 1 MiB, a different digest (the
            digests of larger files are compared by ``genkit run`` and ``genkit verify``); otherwise
            ``unfinished``. Stages run in order: results of stages after an unfinished one belong to
            earlier settings, so these stages are also ``unfinished``.
        damaged: map from the name of each damaged result to a description of the damage.
    """

    id: str
    settings: Mapping[str, Any]
    folder: Path | None = None
    state: Literal["finished", "unfinished", "damaged"] = "unfinished"
    damaged: Mapping[str, str] = field(default_factory=dict)

    @property
    def damage(self) -> str:
        """Description of the first damage; empty unless the stage is damaged."""
        return next(iter(self.damaged.values()), "")

    def has(self, artifact: type[Artifact]) -> bool:
        """Return whether the stage is finished and has a file of this type."""
        folder = self.folder if self.state == "finished" else None
        return folder is not None and (folder / artifact.filename()).is_file()

    def read(self, artifact: type[A]) -> A:
        """Return an artifact of the stage, such as its ``Scores``.

        Raises:
            DataError: the stage is unfinished, or its file of this type is missing or damaged.
        """
        if self.folder is None or not self.has(artifact):
            raise DataError(
                f"stage {self.id} must be finished and have the file {artifact.filename()}, got a "
                f"stage that is {self.state}; run its recipe to the end",
                Code.NOT_FOUND,
            )
        return artifact.load(self.folder / artifact.filename())

    @property
    def images(self) -> int | None:
        """Number of training images at the last logged row; None for a stage without training."""
        if self.folder is None or not (path := self.folder / METRICS).is_file():
            return None
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().splitlines()
        for line in reversed(lines):
            try:
                images = parse_json(line)["images"]
            except (KeyError, TypeError, ValueError):  # a truncated line, or a row without images
                continue
            if isinstance(images, int):
                return images
        return None


@dataclass(frozen=True)
class Failure:
    """The error that ended a run.

    Attributes:
        stage: id of the stage that was running.
        message: message of the error.
        code: code of the mistake, such as ``diverged``; empty for an error without a code.
    """

    stage: str
    message: str
    code: str = ""

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" if self.code else self.message


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        folder: folder of the run.
        name: name of its recipe.
        recipe: recipe with all defaults, as a dict of TOML values.
        stages: map from id to stage, in the order of the recipe.
        failure: error that ended the last call of the run; None if there was no error, or if the
            process was killed.
        damaged: map from the name of each damaged file that describes the run, such as
            ``resolved.toml``, to a description of the damage.
    """

    folder: Path
    name: str
    recipe: Mapping[str, Any] = field(repr=False)
    stages: Mapping[str, StageResult] = field(repr=False)
    failure: Failure | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read a run, which may be finished, unfinished or still running.

        Raises:
            UsageError: the folder is not the folder of a run.
            DataError: the recipe or the state in the folder is missing or damaged.
        """
        if not is_run(folder):
            raise UsageError(
                f"{folder} must be the folder of a run; name one such as runs/edm",
                Code.WRONG_KIND,
            )
        state, recipe = read_state(folder / STATE), _recipe(folder / RESOLVED)
        names = (name for name in (state.get("name"), recipe.get("name")) if isinstance(name, str))
        if (name := next(names, None)) is None:
            raise DataError(
                f"{folder / STATE} must contain the name of a recipe, got a damaged file; run the "
                "recipe again",
                Code.UNREADABLE,
            )
        folders, stages, stale = stages_in(folder), {}, False
        for table in recipe["stage"]:
            stage = StageResult(table["id"], table, folders.get(table["id"]))
            if stage.folder is not None and not stale:
                stage = _with_state(stage, stage.folder)
            stale |= stage.state == "unfinished"  # damage does not affect later stages
            stages[stage.id] = stage
        # While a run starts, its files are newer than its state.
        compared = FILES in state and not is_locked(folder)
        damaged = dict(damages(folder, state)) if compared else {}
        return cls(folder, name, recipe, stages, _failure(state), damaged)

    @property
    def damage(self) -> str:
        """Description of the first damage, of the run or of a stage; empty if there is none."""
        stages = (stage.damage for stage in self.stages.values())
        return next(filter(None, (*self.damaged.values(), *stages)), "")

    @property
    def state(self) -> Literal["finished", "running", "unfinished", "damaged"]:
        """State of the run; ``running`` while a process holds its lock."""
        states = {stage.state for stage in self.stages.values()}
        if is_locked(self.folder):
            return "running"
        if self.damage:
            return "damaged"
        return "finished" if states == {"finished"} else "unfinished"

    def _repr_html_(self) -> str:
        """Return the state, the scores, and the pictures of the samples, for notebooks."""
        parts = [html_table([(self.name, self.state, str(self.folder))])]
        finished = [stage for stage in self.stages.values() if stage.state == "finished"]
        for stage in finished:
            if stage.has(Scores):
                rows = stage.read(Scores).rows[:_ROWS_SHOWN]
                columns = list(dict.fromkeys(column for row in rows for column in row))
                lines = [[row.get(column, "") for column in columns] for row in rows]
                parts.append(html_table(lines, columns))
        for stage in finished:
            if stage.folder and (picture := stage.folder / f"{Samples.name}.png").is_file():
                parts.append(html_picture(picture.read_bytes(), f"samples of {stage.id}"))
        return "".join(parts)

    def stage(self, stage: str) -> StageResult:
        """Return a stage by its id.

        Raises:
            UsageError: there is no stage with this id.
        """
        if stage not in self.stages:
            hint = near_match(stage, self.stages) or f"write one of {', '.join(self.stages)}"
            raise UsageError(f'{self.folder} has no stage "{stage}"; {hint}', Code.UNKNOWN_STAGE)
        return self.stages[stage]


def is_run(folder: Path) -> bool:
    """Return whether a folder is the folder of a run, even if the run is damaged."""
    # A stage has a state file, too, but without a name.
    return (folder / RESOLVED).is_file() or "name" in read_state(folder / STATE)


def is_locked(run: Path) -> bool:
    """Return whether a process is running a recipe in a folder; False if that is unknown."""
    if not (run / LOCK).is_file():
        return False
    lock = filelock.FileLock(run / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    except (NotImplementedError, OSError):  # no locks, or the file of another user
        return False
    lock.release()
    return False


def _failure(state: Mapping[str, Any]) -> Failure | None:
    """Return the error in the state of a run; None if there is none, or if it is damaged."""
    with suppress(KeyError, TypeError):
        failure = Failure(**state["failure"])
        if all(isinstance(text, str) for text in vars(failure).values()):
            return failure
    return None


def _with_state(stage: StageResult, folder: Path) -> StageResult:
    state = read_state(folder / STATE)
    if state.get("finished") is not True:
        return stage
    damaged = dict(damages(folder, state))
    return replace(stage, state="damaged" if damaged else "finished", damaged=damaged)


def _recipe(path: Path) -> dict[str, Any]:
    """Return a resolved recipe; raise DataError unless every stage has an id."""
    try:
        recipe = read_toml(path)
        ids = [stage["id"] for stage in recipe["stage"]]
    except (KeyError, OSError, TypeError, ValueError) as error:
        reason = "no list of stages with ids"
        if isinstance(error, OSError):
            reason = f"no file that can be read: {error.strerror}"
        elif isinstance(error, ValueError):
            reason = f"a file that is not TOML: {error}"
        raise DataError(
            f"{path} must be a recipe, got {reason}; run the recipe again",
            Code.UNREADABLE,
        ) from error
    if not ids or not all(isinstance(stage, str) for stage in ids):
        raise DataError(
            f"{path} must be a recipe whose stages have ids, got {quote(ids)}; run the recipe "
            "again",
            Code.UNREADABLE,
        )
    return recipe
