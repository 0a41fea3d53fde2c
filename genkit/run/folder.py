"""Manage the run folder: the folders of stages, and the states of stages and of the run."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from genkit.artifacts import checkpoint
from genkit.artifacts.layout import (
    REPLACED,
    RESOLVED,
    STATE,
    stage_folder,
    stage_folders,
    stages_in,
)
from genkit.artifacts.runs import Failure
from genkit.artifacts.state import DIGESTS, FILES, damages, read_state, record_of
from genkit.errors import Code, DataError, UsageError
from genkit.files import read_toml, sync_folder, write_json_with_digest, write_text
from genkit.run import repair
from genkit.run.lock import locked
from genkit.run.redo import Redo

_REDONE = ".redone"  # suffix of folders in replaced/ that are never restored


class RunFolder:
    """The folder of a run, which belongs to one recipe.

    Args:
        root: folder of the run, which need not exist.
        name: name of the recipe.

    Raises:
        UsageError: the folder contains other files, or the run of a different recipe.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self._name = name
        self.is_damaged = False
        """Whether the state of the run was damaged, so that requests in it are lost."""
        try:
            str(root).encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"--out must be a path in UTF-8, got {str(root)!a}; choose another --out",
                Code.INVALID_NAME,
            ) from error
        try:
            if root.exists() and not root.is_dir():
                raise UsageError(f"{root} is a file; choose a folder with --out", Code.OCCUPIED)
            used = root.is_dir() and any(p for p in root.iterdir() if not p.name.startswith("."))
            self.is_damaged = used and (root / STATE).exists() and not read_state(root / STATE)
        except OSError as error:
            raise UsageError(
                f"{root} cannot be used: {error.strerror}; choose another --out", Code.IO_ERROR
            ) from error
        # Of two files, so that the loss of one of them does not lose the run.
        names = [read_state(root / STATE).get("name"), _resolved_name(root)] if used else [name]
        if not any(names) and not (root / STATE).exists():
            raise UsageError(
                f"{root} is not empty and does not contain a run; choose another --out",
                Code.OCCUPIED,
            )
        if not any(names):
            raise UsageError(
                f"{root / STATE} and {RESOLVED} are damaged or unreadable; if this is the run, "
                f'write {{"name": "{name}"}} to {STATE}, or choose another --out',
                Code.UNREADABLE,
            )
        if name not in names:
            raise UsageError(
                f'{root} contains the run of "{names[0] or names[1]}"; choose another --out',
                Code.OCCUPIED,
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and lock it inside the block.

        Raises:
            UsageError: another process is running in the folder, or the folder cannot be written.
        """
        with locked(self.root):
            self._write(self.redo)
            yield

    @property
    def redo(self) -> Redo:
        """Unfinished request to run stages again; an empty request if there is none."""
        return Redo.parsed(read_state(self.root / STATE).get("redo", {}))

    def describe(self, texts: Mapping[str, str]) -> None:
        """Write files that describe the run, and record their sizes and digests.

        Args:
            texts: map from the name of each file to its text.
        """
        for name, text in texts.items():
            write_text(self.root / name, text)
        state = read_state(self.root / STATE)
        contents = {name: text.encode() for name, text in texts.items()}
        sizes = {name: len(content) for name, content in contents.items()}
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        described = {FILES: {**state.get(FILES, {}), **sizes}}
        described[DIGESTS] = {**state.get(DIGESTS, {}), **digests}
        self._write(self.redo, described=described)

    def damages(self) -> dict[str, str]:
        """Return a map from the name of each damaged file that describes the run to its damage."""
        state = read_state(self.root / STATE)
        return dict(damages(self.root, state)) if FILES in state else {}

    def _write(
        self,
        redo: Redo,
        failure: Failure | None = None,
        described: Mapping[str, Any] | None = None,
    ) -> None:
        state: dict[str, Any] = {"name": self._name}
        if redo.pending:
            state["redo"] = asdict(redo)
        if failure is not None:
            state["failure"] = asdict(failure)
        if described is None:
            earlier = read_state(self.root / STATE)
            described = {key: earlier[key] for key in (FILES, DIGESTS) if key in earlier}
        write_json_with_digest(self.root / STATE, {**state, **described})

    def fail(self, failure: Failure) -> None:
        """Record the error that ended the run. It is removed when the run is started again."""
        self._write(self.redo, failure)

    def set_aside(self, redo: Redo, stages: Collection[str]) -> list[str]:
        """Move the results of the stages that run again to ``replaced/``, dependents first.

        The request is written before anything is moved, so that the next call completes it if this
        one is killed. Results that are moved by a request are never restored.

        Args:
            redo: request to run stages again.
            stages: ids of all stages of the recipe.

        Returns:
            Ids of the stages whose results were moved.
        """
        moved = []
        if not redo.set_aside:
            self._write(redo)
            for stage, folder in reversed(stage_folders(self.root)):
                if stage in redo.pending:
                    self._set_aside(folder, _REDONE)
                    moved.append(stage)
        if redo.pending:
            left = [stage for stage in redo.pending if stage in stages]
            self._write(replace(redo, pending=left, set_aside=True))
        return moved

    def end(self, stage: str) -> None:
        """Record that a stage is finished and no longer pending."""
        if stage in (redo := self.redo).pending:
            self._write(redo.without(stage))

    def finished(self, number: int, stage: str, fingerprint: str) -> bool:
        """Return whether a stage is finished with this fingerprint, and no result is damaged."""
        return self._whole(self._find(number, stage), fingerprint)

    def damage(self, number: int, stage: str) -> str:
        """Return a description of the first damaged result of a finished stage; empty if none."""
        place = self._find(number, stage)
        state = read_state(place / STATE)
        return repair.damage(place, state) if state.get("finished") is True else ""

    def _whole(self, place: Path, fingerprint: str) -> bool:
        state = read_state(place / STATE)
        return (
            state.get("finished") is True
            and state.get("fingerprint") == fingerprint
            and not repair.damage(place, state)
        )

    def change(self, number: int, stage: str, fingerprint: str) -> str:
        """Return why the results of a stage do not have a fingerprint; empty if they have it.

        The checkpoint has it as well, in case the state is damaged. Results without a fingerprint
        may belong to other settings.
        """
        place = self._find(number, stage)
        found = read_state(place / STATE).get("fingerprint")
        results = isinstance(found, str) or is_begun(place)
        if not results or fingerprint in (found, checkpoint.fingerprint(place)):
            return ""
        if isinstance(found, str):
            return "settings or code changed"
        return f"{place / STATE} is missing or damaged"

    def has_damaged_state(self, number: int, stage: str) -> bool:
        """Return whether a stage has a state file that is damaged."""
        path = self._find(number, stage) / STATE
        return path.exists() and not read_state(path)

    def state(self, number: int, stage: str, fingerprint: str) -> str:
        """Return the state of a stage, see :func:`genkit.run.engine.stage_states`."""
        if self.finished(number, stage, fingerprint):
            return "finished"
        if self.change(number, stage, fingerprint):
            return "restored" if self._replaced(stage, fingerprint) else "changed"
        return "resume" if is_begun(self._find(number, stage)) else "new"

    def open_stage(self, number: int, stage: str, fingerprint: str) -> Path:
        """Return the folder in which a stage starts or resumes.

        Results of other settings are not deleted but moved to ``replaced/``. They are restored when
        the recipe has these settings again.

        Raises:
            UsageError: there is a file at the path of the folder.
            DamagedError: the state and all checkpoints of the stage are damaged.
        """
        place, existing = self.place(number, stage), self._find(number, stage)
        _require_folder(place)
        if self.change(number, stage, fingerprint):
            repair.require_readable(existing)
            self._set_aside(existing)
            # Earlier results of a stage that is requested to run again must not be restored.
            pending = stage in self.redo.pending
            existing = (not pending and self._replaced(stage, fingerprint)) or place
        if existing.exists() and existing != place:
            existing.rename(place)
        place.mkdir(exist_ok=True)
        sync_folder(self.root)  # so that the folder itself survives a power failure
        if not self._whole(place, fingerprint):
            self.mark(place, fingerprint, finished=False)
            repair.remove_damaged(place)
        return place

    def mark(self, folder: Path, fingerprint: str, *, finished: bool) -> None:
        """Write the state of a stage: fingerprint, whether it is finished, and its results.

        The state of a stage that runs again keeps the sizes and digests of its earlier results.
        """
        earlier = read_state(folder / STATE)
        state: dict[str, Any] = {"fingerprint": fingerprint, "finished": finished, FILES: {}}
        if finished:
            state |= record_of(folder)
        elif earlier.get("fingerprint") == fingerprint:
            state |= repair.earlier_results(earlier)
        write_json_with_digest(folder / STATE, state)

    def place(self, number: int, stage: str) -> Path:
        """Return the folder of a stage, such as ``02-fakes``."""
        return stage_folder(self.root, number, stage)

    def _find(self, number: int, stage: str) -> Path:
        """Return the existing folder of a stage, even if a change of the recipe renumbered it."""
        place = self.place(number, stage)
        return place if place.exists() else stages_in(self.root).get(stage, place)

    def _set_aside(self, folder: Path, ending: str = "") -> None:
        replaced = self.root / REPLACED
        _require_folder(replaced)
        replaced.mkdir(exist_ok=True)
        numbers = [int(p.name[:3]) for p in replaced.glob("[0-9][0-9][0-9]-*")]
        folder.rename(replaced / f"{max(numbers, default=0) + 1:03d}-{folder.name}{ending}")

    def _replaced(self, stage: str, fingerprint: str) -> Path | None:
        """Return the last folder of a stage with this fingerprint in ``replaced/``, or None."""
        for folder in sorted((self.root / REPLACED).glob(f"*-{stage}"), reverse=True):
            if read_state(folder / STATE).get("fingerprint") == fingerprint:
                return folder
        return None


def _require_folder(path: Path) -> None:
    """Raise UsageError if something other than a folder is at a path."""
    if os.path.lexists(path) and not path.is_dir():
        got = "a link to no folder" if path.is_symlink() else "a file"
        raise UsageError(f"{path} must be a folder, got {got}; move it", Code.OCCUPIED)


def is_begun(folder: Path) -> bool:
    """Return whether the folder of a stage contains more than its state."""
    return folder.is_dir() and any(path.name != STATE for path in folder.iterdir())


def _resolved_name(root: Path) -> str | None:
    """Return the name of the resolved recipe in a run folder; None if it is missing or damaged."""
    try:
        name = read_toml(root / RESOLVED).get("name")
    except (DataError, OSError, ValueError):
        return None
    return name if isinstance(name, str) else None
