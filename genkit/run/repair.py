"""Repair a stage of which a result is damaged: write every result again.

The state of a stage that runs again keeps the sizes and digests of its earlier results under
``earlier``, until it is finished. So a repair that is killed is completed by the next call.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from genkit import tensors
from genkit.artifacts.layout import STATE, is_checkpoint, results_in
from genkit.artifacts.runs import damage_of, read_state
from genkit.errors import DataError
from genkit.tensors import file_digest

_EARLIER = "earlier"


def damage(folder: Path, state: Mapping[str, Any]) -> str:
    """Return a description of the first damaged result of a stage; empty if none is damaged."""

    def digest_of(path: Path) -> str:
        about = path.stat()
        return _digest(path, about.st_mtime_ns, about.st_size, about.st_ino)

    return damage_of(folder, state, digest_of)


@cache
def _digest(path: Path, *_: int) -> str:
    """Return the SHA-256 of a file, which is read once per process unless it changes.

    Time, size and inode of the file are part of the key of the cache.
    """
    return file_digest(path)


def earlier_results(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a new state with the earlier results in a state; empty without them."""
    kept = state if state.get("finished") is True else state.get(_EARLIER)
    valid = isinstance(kept, dict) and isinstance(kept.get("files"), dict)
    return {_EARLIER: kept} if valid else {}


def remove_damaged(folder: Path) -> None:
    """Remove damaged earlier results of a stage that runs again, so that none remains."""
    for earlier in earlier_results(read_state(folder / STATE)).values():
        for name, size in earlier["files"].items():
            if damage(folder, {**earlier, "files": {name: size}}):
                (folder / name).unlink(missing_ok=True)


def restart(folder: Path) -> str:
    """Remove the checkpoints of a stage that ran, if a result is damaged or was not written again.

    A stage that resumes from its last checkpoint does not write the results from before it, such
    as snapshots of an average. So it must run from its beginning to write them.

    Returns:
        Names of these results, separated by commas; empty if there are none.
    """
    names = {name for name in results_in(folder) if _is_damaged_file(folder / name)}
    for earlier in earlier_results(read_state(folder / STATE)).values():
        names |= earlier["files"].keys() - results_in(folder)
    if names:
        for path in list(folder.iterdir()):
            if path.name in names or is_checkpoint(path):
                path.unlink()
    return ", ".join(sorted(names))


def _is_damaged_file(path: Path) -> bool:
    """Return whether a file of tensors does not have the content that was written."""
    if path.suffix != ".safetensors":
        return False
    try:
        tensors.load(path)
    except DataError:
        return True
    return False
