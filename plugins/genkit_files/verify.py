"""``genkit verify``: compare files with the digests that were recorded when they were written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from genkit.errors import Code, DamagedError, DataError, UsageError
from genkit.settings import quote
from genkit.terminal import console, say
from genkit_files.disk import user_errors


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
    """Yield the state of each result, each checkpoint and each data file of a run."""
    from genkit.artifacts.layout import STATE, is_checkpoint, stage_folders
    from genkit.artifacts.runs import is_locked, read_state

    yield from map(_tensor_file, sorted(run.glob("data-*.safetensors")))
    for _, folder in stage_folders(run):
        state = read_state(folder / STATE)
        if state.get("finished") is True:
            yield from _results(folder, state)
        elif is_locked(run):
            yield Checked(str(folder), "unknown", "the stage is running; check it afterwards")
            continue
        elif not state:
            yield Checked(str(folder / STATE), "damaged", "the state of the stage cannot be read")
        yield from map(_tensor_file, filter(is_checkpoint, sorted(folder.iterdir())))


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
