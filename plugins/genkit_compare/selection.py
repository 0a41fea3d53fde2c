"""Select the scoring stages to compare, and group them into tables."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genkit.artifacts import Run, Scores, StageResult
from genkit.artifacts.layout import RESOLVED
from genkit.artifacts.runs import is_run
from genkit.artifacts.scores import scores_in
from genkit.errors import Code, UsageError
from genkit.settings import near_match
from genkit.terminal import warn


@dataclass(frozen=True)
class Selection:
    """A run on the command line, with the stages to compare.

    Attributes:
        run: the run.
        label: unique name of the run in tables and plots.
        stages: the scoring stage on the command line, or all finished scoring stages of the run.
        named: whether the command line contains a stage.
    """

    run: Run
    label: str
    stages: Sequence[StageResult]
    named: bool


@dataclass(frozen=True)
class Member:
    """A scoring stage of a run.

    Attributes:
        run: the run.
        label: name of the stage in tables and plots.
        stage: the stage.
        scores: scores that the stage wrote.
    """

    run: Run
    label: str
    stage: StageResult
    scores: Scores

    @property
    def names(self) -> list[str]:
        """Names of the scores."""
        return list(dict.fromkeys(name for row in self.scores.rows for name in scores_in(row)))


@dataclass(frozen=True)
class Group:
    """Scoring stages whose scores are compared with each other.

    Attributes:
        title: ids of the stages, without repetitions.
        members: the stages, in the order of the command line; a run may have several.
    """

    title: str
    members: Sequence[Member]


def select(paths: Sequence[Path]) -> list[Selection]:
    """Return the runs and stages for the arguments ``RUN`` or ``RUN/STAGE`` of a command line.

    Raises:
        UsageError: there are fewer than two paths, or a path is repeated, is neither a run nor a
            stage of a run, or has no scores.
        DataError: a run is damaged.
    """
    if len(paths) < 2:
        raise UsageError(
            f"the number of RUN arguments must be at least two, got {len(paths)}; write, for "
            "example, genkit compare runs/edm runs/edm-aot",
            Code.WRONG_LENGTH,
        )
    resolved: list[tuple[Run, StageResult | None]] = []
    loaded: dict[Path, Run] = {}
    for path in paths:
        run, stage = _resolve(path)
        run = loaded.setdefault(run.folder.resolve(), run)
        for other, other_stage in resolved:
            if run is other and (
                stage is None or other_stage is None or stage.id == other_stage.id
            ):
                raise UsageError(
                    f"RUN must not be repeated, got {path} twice; remove one", Code.DUPLICATE
                )
        resolved.append((run, stage))
    for run in loaded.values():
        if damage := run.damaged.get(RESOLVED):
            warn(f"{damage}; the settings shown may be wrong, so run the recipe again")
    labels = _labels([run.folder for run, _ in resolved])
    return [
        Selection(run, label, _scoring(run, stage), stage is not None)
        for (run, stage), label in zip(resolved, labels, strict=True)
    ]


def group_stages(selections: Sequence[Selection]) -> list[Group]:
    """Group stages by id; if all paths are ``RUN/STAGE``, all stages are one group.

    Raises:
        UsageError: no two runs have scoring stages with the same id.
        DataError: scores are corrupt.
    """
    if all(selection.named for selection in selections):
        by_id = {"": [(selection, selection.stages[0]) for selection in selections]}
    else:
        by_id = {}
        for selection in selections:
            for stage in selection.stages:
                by_id.setdefault(stage.id, []).append((selection, stage))
        if not any(len(members) > 1 for members in by_id.values()):
            got = "; ".join(f"{s.label}: {', '.join(st.id for st in s.stages)}" for s in selections)
            raise UsageError(
                f"the runs must have scoring stages with the same id, got {got}; write the stages "
                "to compare as RUN/STAGE",
                Code.CONFLICT,
            )
    groups = []
    for pairs in by_id.values():
        ids = list(dict.fromkeys(stage.id for _, stage in pairs))
        distinct = len({selection.label for selection, _ in pairs}) == len(pairs)
        members = [
            Member(
                selection.run,
                selection.label if distinct and len(ids) == 1 else f"{selection.label}/{stage.id}",
                stage,
                stage.read(Scores),
            )
            for selection, stage in pairs
        ]
        groups.append(Group(", ".join(ids), members))
    return groups


def _resolve(path: Path) -> tuple[Run, StageResult | None]:
    """Return the run of a path, and the stage if the path contains one."""
    path = Path(os.path.normpath(path))
    try:
        if is_run(path):
            return Run.load(path), None
        if is_run(path.parent):
            run = Run.load(path.parent)
            numbered = re.fullmatch(r"[0-9]{2}-(.+)", path.name)
            plain = numbered and path.name not in run.stages
            return run, run.stage(numbered[1] if numbered and plain else path.name)
        reason, code = (
            ("", Code.WRONG_KIND) if path.exists() else (", which does not exist", Code.NOT_FOUND)
        )
        raise UsageError(f"RUN must be a run or RUN/STAGE, got {path}{reason}; {_hint(path)}", code)
    except OSError as error:
        raise UsageError(
            f"RUN must be a readable run or RUN/STAGE, got {path}: {error.strerror}; write a "
            "different path",
            Code.IO_ERROR,
        ) from error


def _hint(path: Path) -> str:
    """Return a hint for a path that is not a run: the runs in it, or a similar name next to it."""
    for folder in (path, path.parent):
        if folder.is_dir():
            runs = sorted(str(place) for place in folder.iterdir() if is_run(place))
            near = "" if folder == path else near_match(str(path), runs)
            if runs:
                return near or f"runs in {folder}: {', '.join(runs[:9])}"
    return "see genkit runs"


def _scoring(run: Run, named: StageResult | None) -> list[StageResult]:
    """Return the finished scoring stages of a run, or only ``named``.

    Raises:
        UsageError: the run or the stage has no scores.
    """
    stages = [stage for stage in ([named] if named else run.stages.values()) if stage.has(Scores)]
    if stages:
        return stages
    stopped = next((stage for stage in run.stages.values() if stage.state != "finished"), None)
    if named is not None and named.state == "finished":
        others = ", ".join(s.id for s in run.stages.values() if s.has(Scores)) or "none"
        raise UsageError(
            f"{run.folder}/{named.id} must be a stage that writes scores; the stages of this run "
            f"with scores are: {others}",
            Code.WRONG_REFERENCE,
        )
    what = f"{run.folder}/{named.id}" if named else str(run.folder)
    if stopped is None:
        raise UsageError(
            f"{what} must have scores, but none of its stages writes scores; add a stage evaluate "
            "or sweep to its recipe",
            Code.NOT_FOUND,
        )
    state = f"damaged: {stopped.damage}" if stopped.damage else stopped.state
    raise UsageError(
        f"{what} must have scores, but stage {stopped.id} is {state}; run the same recipe to "
        f"{'repeat' if stopped.damage else 'resume'} it",
        Code.NOT_FOUND,
    )


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return each path as text, relative to the common parent folder."""
    distinct = list(dict.fromkeys(folder.resolve() for folder in folders))
    above = Path(os.path.commonpath([folder.parent for folder in distinct]))
    return [folder.resolve().relative_to(above).as_posix() for folder in folders]
