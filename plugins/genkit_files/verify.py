"""``genkit verify``: compare files with the digests that were recorded when they were written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from genkit.errors import Code, DamagedError, DataError, UsageError
from genkit.settings import quote
from genkit.terminal import console, json_mistakes, say
from genkit_files.disk import user_errors

if TYPE_CHECKING:
    from genkit.artifacts.runs import StageResult


@dataclass(frozen=True)
class Checked:
    """The state of a file.

    Attributes:
        path: path of the file.
        state: ``intact`` if the content is the one that was written; ``damaged`` if it is not;
            ``unknown`` if the file cannot be checked.
        reason: reason for a state other than ``intact``.
    """

    path: str
    state: Literal["intact", "damaged", "unknown"]
    reason: str = ""


@json_mistakes
def verify(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Folder of a run, or a .safetensors file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check the results and checkpoints of a run, or one file, for damage.

    The exit code is 4 if a file is damaged.
    """
    from genkit.artifacts.layout import is_checkpoint

    with user_errors(path):
        found = list(_checked(path))
    damaged = [each for each in found if each.state == "damaged"]
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    else:
        to = console()
        for each in found:
            say(to, f"{each.state:<8} {each.path}{': ' if each.reason else ''}{each.reason}")
        say(to, f"\n{len(found):,} files checked, {len(damaged):,} damaged")
        if damaged and path.is_dir():
            say(to, "Run the recipe again: stages with damaged results are repeated.")
            if any(is_checkpoint(Path(each.path)) for each in damaged):
                say(to, "Delete damaged checkpoints of finished stages: they are not required.")
    if damaged:
        raise typer.Exit(DamagedError.exit_code)


def _checked(path: Path) -> Iterator[Checked]:
    from genkit.artifacts.runs import is_run

    if path.is_file():
        yield _tensor_file(path)
    elif path.is_dir() and is_run(path):
        yield from _run(path)
    else:
        got = f"the folder {path}, which is not a run" if path.exists() else f"no file {path}"
        raise UsageError(
            f"PATH must be the folder of a run or a .safetensors file, got {got}; write, for "
            "example, runs/NAME",
            Code.NOT_FOUND,
        )


def _run(run: Path) -> Iterator[Checked]:
    """Yield the state of each file of a run that has a digest, or whose content can be checked."""
    from genkit.artifacts.layout import REPLACED, STATE, stage_folders
    from genkit.artifacts.runs import is_locked, read_state

    running = is_locked(run)
    yield from _descriptions(run, running=running)
    yield from map(_tensor_file, sorted(run.glob("data-*.safetensors")))
    for _, folder in stage_folders(run):
        state = read_state(folder / STATE)
        if running and state.get("finished") is not True:
            yield Checked(str(folder), "unknown", "the stage is running; check it afterwards")
        else:
            yield from _stage(folder, state)
    for folder in sorted(path for path in (run / REPLACED).glob("*") if path.is_dir()):
        # genkit itself moves a stage with an unreadable state there, so it is no damage to repair.
        yield from _stage(folder, read_state(folder / STATE), unreadable="unknown")
    for path in sorted(path for path in run.rglob(".*.tmp") if path.is_file()):
        reason = "a process writes it, or was killed; the next process that writes removes it"
        yield Checked(str(path), "unknown", reason)


def _stage(
    folder: Path, state: dict[str, object], unreadable: Literal["damaged", "unknown"] = "damaged"
) -> Iterator[Checked]:
    """Yield the state of the results, the checkpoints and the logs of a stage."""
    from genkit.artifacts.layout import STATE, is_checkpoint

    if state.get("finished") is True:
        yield from _results(folder, state)
    elif not state:
        yield Checked(str(folder / STATE), unreadable, "the state of the stage cannot be read")
    yield from map(_tensor_file, filter(is_checkpoint, sorted(folder.iterdir())))
    yield from map(_log, sorted(folder.glob("*.jsonl")))


def _descriptions(run: Path, *, running: bool) -> Iterator[Checked]:
    """Yield the files of the run itself that are damaged, and the state of its results."""
    from genkit.artifacts import Run
    from genkit.artifacts.layout import RESOLVED, RESULTS, STATE
    from genkit.artifacts.runs import read_state

    if "name" not in read_state(run / STATE):
        yield Checked(str(run / STATE), "damaged", "the name of the recipe cannot be read")
    try:
        stages = Run.load(run).stages.values()
    except DataError as error:
        yield Checked(str(run / RESOLVED), "damaged", str(error).removeprefix(f"{run / RESOLVED} "))
        return
    if not running and all(stage.state == "finished" for stage in stages):
        path, reason = run / RESULTS, "differs from the scores of the stages"
        same = read_state(path).get("stages") == _scores(stages)
        yield Checked(str(path), "intact" if same else "damaged", "" if same else reason)


def _scores(stages: Iterable[StageResult]) -> dict[str, object]:
    """Return the scores of stages in the form of ``results.json``; of readable files only."""
    from genkit.artifacts import Scores

    by_stage: dict[str, object] = {}
    for stage in stages:
        if stage.has(Scores):
            with suppress(DataError):  # reported as a damaged file of its stage
                scores = stage.read(Scores)
                by_stage[stage.id] = {"rows": scores.rows, "facts": scores.facts}
    return by_stage


def _log(path: Path) -> Checked:
    """Return the state of a log, which has no digest, since lines are appended."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            valid = isinstance(json.loads(line), dict)
        except ValueError:
            valid = False
        if not valid:
            cut = number == len(lines)
            reason = "may be cut off by a kill" if cut else "was changed"
            reason = f"line {number} is not a JSON object, and {reason}; it is ignored"
            return Checked(str(path), "unknown" if cut else "damaged", reason)
    return Checked(str(path), "unknown", "only its lines were checked: a log has no digest")


def _results(folder: Path, state: dict[str, object]) -> Iterator[Checked]:
    from genkit.artifacts.runs import damage_of
    from genkit.tensors import file_digest

    files, digests = state.get("files"), state.get("digests", {})
    if not isinstance(files, dict) or not isinstance(digests, dict):
        yield Checked(str(folder), "damaged", damage_of(folder, state))
        return
    for name, size in files.items():
        path = folder / name
        about = {"files": {name: size}, "digests": digests}
        if damage := damage_of(folder, about, file_digest):
            yield Checked(str(path), "damaged", damage.removeprefix(f"{path} "))
        elif name not in digests:
            reason = "only its size was checked: an earlier version wrote it, without a digest"
            yield Checked(str(path), "unknown", reason)
        else:
            yield Checked(str(path), "intact")


def _tensor_file(path: Path) -> Checked:
    from genkit import tensors

    if path.suffix == ".tmp":
        raise UsageError(
            f"PATH must be a file that is complete, got {path}, which a process writes, or wrote "
            "until it was killed; check the file that it replaces",
            Code.WRONG_KIND,
        )
    if path.suffix != ".safetensors":
        raise UsageError(
            f"PATH must be the folder of a run or a .safetensors file, got {quote(str(path))}; "
            "other files are checked as part of their run",
            Code.WRONG_KIND,
        )
    try:
        if not tensors.has_digest(path):
            reason = "it has no digest: it was written by an earlier version or by another program"
            return Checked(str(path), "unknown", reason)
        tensors.load(path)
    except DataError as error:
        return Checked(str(path), "damaged", str(error).removeprefix(f"{path}").lstrip(": "))
    return Checked(str(path), "intact")
