"""What is compared: scoring stages of runs, in groups of which each has a table of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genkit.artifacts import Run, Scores, StageResult
from genkit.artifacts.runs import is_run
from genkit.artifacts.scores import scores_in
from genkit.errors import Code, UsageError
from genkit.settings import near_match


@dataclass(frozen=True)
class Chosen:
    """A run as it was named on the command line.

    Attributes:
        run: the run.
        label: its name in tables and plots, which no other run has.
        stages: its scoring stages: all finished ones, or the one that was named.
        named: whether a stage was named.
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
        label: its name in tables and plots.
        stage: the stage.
        scores: what it wrote.
    """

    run: Run
    label: str
    stage: StageResult
    scores: Scores

    @property
    def names(self) -> list[str]:
        """Names of its scores."""
        return list(dict.fromkeys(name for row in self.scores.rows for name in scores_in(row)))


@dataclass(frozen=True)
class Group:
    """Scoring stages whose scores are compared.

    Attributes:
        title: ids of the stages, each once.
        members: one or several of each run, in the order of the command line.
    """

    title: str
    members: Sequence[Member]


def choose(paths: Sequence[Path]) -> list[Chosen]:
    """Return the runs and stages of a command line, ``RUN`` or ``RUN/STAGE`` each.

    Raises:
        UsageError: there are fewer than two, one is named twice, is not a run or a stage of one,
            or has no scores.
        DataError: a run is damaged.
    """
    if len(paths) < 2:
        raise UsageError(
            f"RUN must be two or more runs, got {len(paths)}; write, for example, "
            "genkit compare runs/edm runs/edm-aot",
            Code.WRONG_LENGTH,
        )
    found: list[tuple[Run, StageResult | None]] = []
    read: dict[Path, Run] = {}
    for path in paths:
        run, stage = _resolve(path)
        run = read.setdefault(run.folder.resolve(), run)
        for other, before in found:
            if run is other and (stage is None or before is None or stage.id == before.id):
                raise UsageError(
                    f"RUN must not be repeated, got {path} twice; leave one out",
                    Code.DUPLICATE,
                )
        found.append((run, stage))
    labels = _labels([run.folder for run, _ in found])
    return [
        Chosen(run, label, _scoring(run, stage), stage is not None)
        for (run, stage), label in zip(found, labels, strict=True)
    ]


def grouped(chosen: Sequence[Chosen]) -> list[Group]:
    """Return the groups: one if every stage is named, else one for each id that two runs have.

    Raises:
        UsageError: no two runs have a scoring stage of one id.
        DataError: scores are damaged.
    """
    if all(one.named for one in chosen):
        found = {"": [(one, one.stages[0]) for one in chosen]}
    else:
        found = {}
        for one in chosen:
            for stage in one.stages:
                found.setdefault(stage.id, []).append((one, stage))
        if not any(len(members) > 1 for members in found.values()):
            has = "; ".join(f"{one.label}: {', '.join(s.id for s in one.stages)}" for one in chosen)
            raise UsageError(
                f"RUN must be runs with scoring stages of one id, got {has}; name the stages to "
                "compare as RUN/STAGE",
                Code.CONFLICT,
            )
    groups = []
    for pairs in found.values():
        ids = list(dict.fromkeys(stage.id for _, stage in pairs))
        distinct = len({one.label for one, _ in pairs}) == len(pairs)
        members = [
            Member(
                one.run,
                one.label if distinct and len(ids) == 1 else f"{one.label}/{stage.id}",
                stage,
                stage.read(Scores),
            )
            for one, stage in pairs
        ]
        groups.append(Group(", ".join(ids), members))
    return groups


def _resolve(path: Path) -> tuple[Run, StageResult | None]:
    """Return the run of a path, and the stage that it names."""
    path = Path(os.path.normpath(path))
    try:
        if is_run(path):
            return Run.load(path), None
        if is_run(path.parent):
            run = Run.load(path.parent)
            numbered = re.fullmatch(r"[0-9]{2}-(.+)", path.name)
            plain = numbered and path.name not in run.stages
            return run, run.stage(numbered[1] if numbered and plain else path.name)
        what, code = (
            ("is neither", Code.WRONG_KIND) if path.exists() else ("does not exist", Code.NOT_FOUND)
        )
        raise UsageError(f"{path} must be a run or RUN/STAGE, and {what}; {_hint(path)}", code)
    except OSError as error:
        raise UsageError(
            f"{path} must be a run or RUN/STAGE, and is unreadable: {error.strerror}; name another",
            Code.IO_ERROR,
        ) from error


def _hint(path: Path) -> str:
    """Return the runs in a folder that is none, or the nearest beside it."""
    for folder in (path, path.parent):
        if folder.is_dir():
            runs = sorted(str(place) for place in folder.iterdir() if is_run(place))
            near = "" if folder == path else near_match(str(path), runs)
            if runs:
                return near or f"runs in {folder}: {', '.join(runs[:9])}"
    return "see genkit runs"


def _scoring(run: Run, named: StageResult | None) -> list[StageResult]:
    """Return the finished stages with scores.

    Raises:
        UsageError: there is none.
    """
    stages = [stage for stage in ([named] if named else run.stages.values()) if stage.has(Scores)]
    if stages:
        return stages
    stopped = next((stage for stage in run.stages.values() if stage.state != "finished"), None)
    if named is not None and named.state == "finished":
        others = ", ".join(s.id for s in run.stages.values() if s.has(Scores)) or "none"
        raise UsageError(
            f"{run.folder}/{named.id} must be a stage with scores, and writes none; stages of this "
            f"run with scores: {others}",
            Code.WRONG_REFERENCE,
        )
    what = f"{run.folder}/{named.id}" if named else str(run.folder)
    if stopped is None:
        raise UsageError(
            f"{what} must have scores, and none of its stages writes any; add a stage evaluate or "
            "sweep to its recipe",
            Code.NOT_FOUND,
        )
    raise UsageError(
        f"{what} must have scores, and has none yet: stage {stopped.id} is {stopped.state}; run "
        "the same recipe to resume it",
        Code.NOT_FOUND,
    )


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return the end of each path from where they differ on; a stage of one run has its label."""
    distinct = list(dict.fromkeys(folder.resolve() for folder in folders))
    above = Path(os.path.commonpath([folder.parent for folder in distinct]))
    return [folder.resolve().relative_to(above).as_posix() for folder in folders]
