"""``genkit verify``: compare files with the digests that were recorded when they were written."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from genkit.errors import Code, DamagedError, DataError, UsageError
from genkit.files import require_regular
from genkit.settings import quote
from genkit.terminal import console, json_mistakes, say
from genkit_files.disk import user_errors

if TYPE_CHECKING:
    from genkit.artifacts.runs import StageResult


_CHANGED = "differs from what was written; delete it, or run its stage again with --redo"


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
            if not all(each.reason == _CHANGED for each in damaged):
                say(to, "Run the recipe again: stages with damaged results are repeated.")
            if any(is_checkpoint(Path(each.path)) for each in damaged):
                say(to, "Delete damaged checkpoints of finished stages: they are not required.")
    if damaged:
        raise typer.Exit(DamagedError.exit_code)


def _checked(path: Path) -> Iterator[Checked]:
    from genkit.artifacts.runs import is_run

    require_regular(path)
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
    from genkit.artifacts.layout import REPLACED, STATE, stage_folders, stages_in
    from genkit.artifacts.runs import is_locked
    from genkit.artifacts.state import read_state

    running = is_locked(run)
    yield from _descriptions(run, running=running)
    yield from map(_tensor_file, sorted(run.glob("data-*.safetensors")))
    for _, folder in stage_folders(run):
        state = read_state(folder / STATE)
        if running and state.get("finished") is not True:
            yield Checked(str(folder), "unknown", "the stage is running; check it afterwards")
        else:
            yield from _stage(folder, state)
    yield from _missing(run, stages_in(run))
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
    from genkit.artifacts.layout import STATE, is_checkpoint, logs_in
    from genkit.artifacts.state import LOGS, changed_logs

    if state.get("finished") is True:
        yield from _results(folder, state)
        yield from _unrecorded(folder, state)
    elif not state:
        yield Checked(str(folder / STATE), unreadable, "the state of the stage cannot be read")
    yield from map(_tensor_file, filter(is_checkpoint, sorted(folder.iterdir())))
    changed, digests = set(changed_logs(folder, state)), state.get(LOGS)
    for path in sorted(folder.glob("*.jsonl")):
        if not path.is_file():
            yield Checked(str(path), "damaged", "must be a regular file; delete it")
    for path in logs_in(folder):
        if path in changed:
            yield Checked(str(path), "damaged", _CHANGED)
        elif isinstance(digests, dict) and path.name in digests:
            yield Checked(str(path), "intact")
        elif path.suffix == ".jsonl":
            yield _log(path)


def _missing(run: Path, folders: Collection[str]) -> Iterator[Checked]:
    """Yield the stages of the recipe that have no folder."""
    from genkit.artifacts import Run
    from genkit.artifacts.layout import stage_folder

    with suppress(DataError):  # reported as a damaged file of the run
        for number, stage in enumerate(Run.load(run).stages, 1):
            path = stage_folder(run, number, stage)
            if stage not in folders and os.path.lexists(path):
                yield Checked(str(path), "damaged", "must be a folder; remove it")
            elif stage not in folders:
                reason = "the stage has not begun, or its folder was removed"
                yield Checked(str(path), "unknown", reason)


def _descriptions(run: Path, *, running: bool) -> Iterator[Checked]:
    """Yield the state of the files that describe a run, and of its summary of results."""
    from genkit.artifacts import Run
    from genkit.artifacts.layout import RESOLVED, RESULTS, STATE
    from genkit.artifacts.state import FILES, read_state

    state = read_state(run / STATE)
    if "name" not in state:
        yield Checked(str(run / STATE), "damaged", "the name of the recipe cannot be read")
    if FILES in state:
        yield from _results(run, state)
    try:
        stages = Run.load(run).stages.values()
    except DataError as error:
        if RESOLVED not in state.get(FILES, {}):
            reason = str(error).removeprefix(f"{run / RESOLVED} ")
            yield Checked(str(run / RESOLVED), "damaged", reason)
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
    """Return the state of a log of an unfinished stage, which has no digest yet."""
    from genkit.files import parse_json, read_text

    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            valid = isinstance(parse_json(line), dict)
        except ValueError:
            valid = False
        if not valid:
            cut = number == len(lines)
            reason = "may be cut off by a kill" if cut else "was changed"
            reason = f"line {number} is not a JSON object, and {reason}; it is ignored"
            return Checked(str(path), "unknown" if cut else "damaged", reason)
    return Checked(str(path), "unknown", "only its lines were checked: it has no digest")


def _results(folder: Path, state: dict[str, object]) -> Iterator[Checked]:
    """Yield the state of the files whose sizes and digests are in a state."""
    from genkit.artifacts.state import DIGESTS, FILES, damages
    from genkit.tensors import file_digest

    damaged = dict(damages(folder, state, file_digest))
    sizes, digests = (
        entry if isinstance(entry := state.get(key), dict) else {} for key in (FILES, DIGESTS)
    )
    for name in dict.fromkeys([*damaged, *sizes]):
        path = folder / name
        if name in damaged:
            yield Checked(str(path), "damaged", damaged[name].removeprefix(f"{path} "))
        elif name in digests:
            yield Checked(str(path), "intact")
        elif path.suffix == ".safetensors":
            yield _tensor_file(path)  # which contains a digest of its own
        else:
            reason = "only its size was checked: an earlier version wrote it, without a digest"
            yield Checked(str(path), "unknown", reason)


def _unrecorded(folder: Path, state: dict[str, object]) -> Iterator[Checked]:
    """Yield the results of a stage that its state does not contain."""
    from genkit.artifacts.layout import results_in
    from genkit.artifacts.state import FILES

    recorded = state.get(FILES)
    for name in results_in(folder):
        if not isinstance(recorded, dict) or name not in recorded:
            reason = "the state of the stage does not contain it"
            yield Checked(str(folder / name), "unknown", reason)


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
