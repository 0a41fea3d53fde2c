"""The run folder: one folder per stage, and their states."""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import filelock

from genkit.artifacts.layout import (
    HOLDER,
    LOCK,
    REPLACED,
    STATE,
    results_in,
    stage_folder,
    stage_folders,
    stages_in,
)
from genkit.artifacts.runs import damage_of, read_state
from genkit.errors import Code, UsageError
from genkit.files import write_json

_REDONE = ".redone"  # suffix of folders in replaced/ that are never restored


@dataclass(frozen=True)
class Redo:
    """A request to run stages again although nothing changed, kept until all of them are finished.

    Attributes:
        requested: ids of the requested stages.
        pending: ids of the requested stages and their dependents that are not finished yet.
        set_aside: whether the earlier results were moved to ``replaced/``. From then on, the
            folders of pending stages contain new results, which a later call resumes.
    """

    requested: Sequence[str] = ()
    pending: Sequence[str] = ()
    set_aside: bool = True

    def including(self, stages: Collection[str], dependents: Collection[str]) -> Redo:
        """Return the request with further stages; itself if there are no new ones.

        Args:
            stages: ids of the requested stages.
            dependents: ids of these and of all stages that depend on them.
        """
        if set(stages) <= set(self.requested):
            return self
        return Redo(sorted({*self.requested, *stages}), sorted({*self.pending, *dependents}), False)

    def without(self, stage: str) -> Redo:
        """Return the request without a stage, which is finished."""
        return replace(self, pending=[other for other in self.pending if other != stage])


class RunFolder:
    """The folder of a run, which belongs to one recipe.

    Args:
        root: folder of the run; need not exist.
        name: name of the recipe.

    Raises:
        UsageError: the folder contains something else, or the run of another recipe.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self._name = name
        try:
            if root.exists() and not root.is_dir():
                raise UsageError(f"{root} is a file; choose a folder with --out", Code.OCCUPIED)
            held = root.is_dir() and any(p for p in root.iterdir() if not p.name.startswith("."))
        except OSError as error:
            raise UsageError(f"{root} cannot be used: {error.strerror}", Code.IO_ERROR) from error
        if held and not (root / STATE).exists():
            raise UsageError(
                f"{root} is not empty and holds no run; choose another --out", Code.OCCUPIED
            )
        holds = read_state(root / STATE).get("name") if held else name
        if holds is None:
            raise UsageError(
                f"{root / STATE} is damaged or unreadable; choose another --out", Code.UNREADABLE
            )
        if holds != name:
            raise UsageError(
                f'{root} holds the run of "{holds}"; choose another --out', Code.OCCUPIED
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder, and lock it for the block.

        Raises:
            UsageError: another run is at work in it, or it cannot be written.
        """
        # Commands that only read a run hold the lock for a moment.
        lock = filelock.FileLock(self.root / LOCK, timeout=0.2)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise UsageError(
                f"{self.root} is in use by a run{_holder(self.root)}; wait until it ends, or write "
                "another folder for --out",
                Code.IN_USE,
            ) from error
        except OSError as error:
            raise UsageError(f"{self.root} cannot be written: {error.strerror}") from error
        holder = self.root / HOLDER
        try:
            holder.unlink(missing_ok=True)  # of a killed run, which another run would be shown
            now = datetime.now().astimezone().isoformat(" ", "seconds")
            who = {"process": os.getpid(), "host": socket.gethostname(), "since": now}
            write_json(holder, who)
            self._write(self.redo)
            yield
        finally:
            # Only a message uses the file: failing to remove it must not hide the error of the run.
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()

    @property
    def redo(self) -> Redo:
        """The unfinished request to run stages again."""
        return Redo(**read_state(self.root / STATE).get("redo", {}))

    def _write(self, redo: Redo) -> None:
        state: dict[str, Any] = {"name": self._name}
        if redo.pending:
            state["redo"] = asdict(redo)
        write_json(self.root / STATE, state)

    def set_aside(self, redo: Redo, stages: Collection[str]) -> list[str]:
        """Move the results of the stages that run again to ``replaced/``, dependents first.

        The request is written before anything is moved, so that the next call resumes it after a
        kill. Results that are moved here are never restored from ``replaced/``.

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
        """Whether a stage is finished and its fingerprint is unchanged."""
        return self._whole(self._find(number, stage), fingerprint)

    @staticmethod
    def _whole(place: Path, fingerprint: str) -> bool:
        state = read_state(place / STATE)
        return (
            state.get("finished") is True
            and state.get("fingerprint") == fingerprint
            and not damage_of(place, state.get("files", {}))
        )

    def changed(self, number: int, stage: str, fingerprint: str) -> bool:
        """Whether the folder of a stage contains results of another fingerprint."""
        state = read_state(self._find(number, stage) / STATE)
        return "fingerprint" in state and bool(state["fingerprint"] != fingerprint)

    def open_stage(self, number: int, stage: str, fingerprint: str) -> Path:
        """Return the folder in which a stage starts or resumes.

        Results of other settings are moved to ``replaced/``, never deleted, and are restored from
        there if their settings return.

        Raises:
            UsageError: a file has the path of the folder.
        """
        place, found = self.place(number, stage), self._find(number, stage)
        if place.is_file() or (self.root / REPLACED).is_file():
            raise UsageError(f"{place} and {REPLACED} must be folders, got a file; move it")
        if self.changed(number, stage, fingerprint):
            self._set_aside(found)
            # A stage that is to run again must not be restored from an earlier run.
            pending = stage in self.redo.pending
            found = (not pending and self._replaced(stage, fingerprint)) or place
        if found.exists() and found != place:
            found.rename(place)
        place.mkdir(exist_ok=True)
        if not self._whole(place, fingerprint):
            self.mark(place, fingerprint, finished=False)
        return place

    def mark(self, folder: Path, fingerprint: str, *, finished: bool) -> None:
        """Write the state of a stage: fingerprint, whether it is finished, and its files."""
        files = results_in(folder) if finished else {}
        write_json(
            folder / STATE, {"fingerprint": fingerprint, "finished": finished, "files": files}
        )

    def place(self, number: int, stage: str) -> Path:
        """Return the folder of a stage, such as ``02-fakes``."""
        return stage_folder(self.root, number, stage)

    def _find(self, number: int, stage: str) -> Path:
        """Return the existing folder of a stage, also if a changed recipe gave it a new number."""
        place = self.place(number, stage)
        return place if place.exists() else stages_in(self.root).get(stage, place)

    def _set_aside(self, folder: Path, ending: str = "") -> None:
        replaced = self.root / REPLACED
        replaced.mkdir(exist_ok=True)
        numbers = [int(p.name[:3]) for p in replaced.glob("[0-9][0-9][0-9]-*")]
        folder.rename(replaced / f"{max(numbers, default=0) + 1:03d}-{folder.name}{ending}")

    def _replaced(self, stage: str, fingerprint: str) -> Path | None:
        """Return the last folder of a stage with this fingerprint in ``replaced/``, or None."""
        for folder in sorted((self.root / REPLACED).glob(f"*-{stage}"), reverse=True):
            if read_state(folder / STATE).get("fingerprint") == fingerprint:
                return folder
        return None


def _holder(root: Path) -> str:
    """Return which process runs in a folder, in words; empty if that is unknown."""
    held = read_state(root / HOLDER)
    if not {"process", "host", "since"} <= held.keys():
        return ""
    return f" of process {held['process']} on {held['host']} since {held['since']}"
