"""The run folder: one folder for each stage, and which of them are finished."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from genkit.artifacts.layout import REPLACED, STATE, results_in, stage_folder, stages_in
from genkit.errors import UsageError
from genkit.files import write_json


class RunFolder:
    """A folder that belongs to one recipe.

    Args:
        root: of the run; need not exist.
        name: of the recipe.

    Raises:
        UsageError: the folder holds something else, or another recipe's run.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self._name = name
        try:
            if root.exists() and not root.is_dir():
                raise UsageError(f"{root} is a file; choose a folder with --out")
            held = root.is_dir() and any(p for p in root.iterdir() if not p.name.startswith("."))
        except OSError as error:
            raise UsageError(f"{root} cannot be used: {error.strerror}") from error
        if held and not (root / STATE).exists():
            raise UsageError(f"{root} is not empty and holds no run; choose another --out")
        holds = _read(root / STATE).get("name") if held else name
        if holds is None:
            raise UsageError(f"{root / STATE} is damaged or unreadable; choose another --out")
        if holds != name:
            raise UsageError(f'{root} holds the run of "{holds}"; choose another --out')

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other runs out of it while the block lasts.

        Raises:
            UsageError: another run is at work in it, or it cannot be written.
        """
        lock = filelock.FileLock(self.root / ".lock", timeout=0)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except filelock.Timeout as error:
            raise UsageError(f"another genkit is at work in {self.root}") from error
        except OSError as error:
            raise UsageError(f"{self.root} cannot be written: {error.strerror}") from error
        try:
            write_json(self.root / STATE, {"name": self._name})
            yield
        finally:
            lock.release()

    def finished(self, number: int, stage: str, fingerprint: str) -> bool:
        """Whether a stage is finished and unchanged. Writes nothing."""
        return self._whole(self._find(number, stage), fingerprint)

    @staticmethod
    def _whole(place: Path, fingerprint: str) -> bool:
        state = _read(place / STATE)
        left = state.get("files", {})
        return (
            state.get("finished") is True
            and state.get("fingerprint") == fingerprint
            and left == {name: size for name, size in results_in(place).items() if name in left}
        )

    def changed(self, number: int, stage: str, fingerprint: str) -> bool:
        """Whether the folder of a stage holds what other settings left. Writes nothing."""
        state = _read(self._find(number, stage) / STATE)
        return "fingerprint" in state and bool(state["fingerprint"] != fingerprint)

    def open_stage(self, number: int, stage: str, fingerprint: str) -> Path:
        """Return the folder of a stage to go on in.

        What a stage of other settings left there is moved to ``replaced/``, never deleted, and
        comes back when its settings do.

        Raises:
            UsageError: a file stands where the folder belongs.
        """
        place, found = self.place(number, stage), self._find(number, stage)
        if place.is_file() or (self.root / REPLACED).is_file():
            raise UsageError(f"a file stands in the way of {place} or {REPLACED}; move it")
        if self.changed(number, stage, fingerprint):
            self._set_aside(found)
            found = self._replaced(stage, fingerprint) or place
        if found.exists() and found != place:
            found.rename(place)
        place.mkdir(exist_ok=True)
        if not self._whole(place, fingerprint):
            self.mark(place, fingerprint, finished=False)
        return place

    def mark(self, folder: Path, fingerprint: str, *, finished: bool) -> None:
        """Write down whose result a stage's folder holds and whether it is whole."""
        files = results_in(folder) if finished else {}
        write_json(
            folder / STATE, {"fingerprint": fingerprint, "finished": finished, "files": files}
        )

    def place(self, number: int, stage: str) -> Path:
        """Return where a stage writes, such as ``02-fakes``."""
        return stage_folder(self.root, number, stage)

    def _find(self, number: int, stage: str) -> Path:
        """Return the stage's folder, also where a changed recipe gave it another number."""
        place = self.place(number, stage)
        return place if place.exists() else stages_in(self.root).get(stage, place)

    def _set_aside(self, folder: Path) -> None:
        replaced = self.root / REPLACED
        replaced.mkdir(exist_ok=True)
        numbers = [int(p.name[:3]) for p in replaced.glob("[0-9][0-9][0-9]-*")]
        folder.rename(replaced / f"{max(numbers, default=0) + 1:03d}-{folder.name}")

    def _replaced(self, stage: str, fingerprint: str) -> Path | None:
        """Return what a stage of these settings left earlier, if it was set aside."""
        for folder in sorted((self.root / REPLACED).glob(f"*-{stage}")):
            if _read(folder / STATE).get("fingerprint") == fingerprint:
                return folder
        return None


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object; an absent or damaged file says nothing."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
