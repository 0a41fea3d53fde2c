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
from genkit.artifacts.state import DIGESTS, FILES, damages, read_state
from genkit.errors import DamagedError, DataError
from genkit.tensors import file_digest

_EARLIER = "earlier"
_TENSORS = ".safetensors"


def damage(folder: Path, state: Mapping[str, Any]) -> str:
    """Return a description of the first damaged result of a stage; empty if none is damaged."""
    return next((text for _, text in damages(folder, state, _digest_of)), "")


def _digest_of(path: Path) -> str:
    about = path.stat()
    return _digest(path, about.st_mtime_ns, about.st_size, about.st_ino)


@cache
def _digest(path: Path, *_: int) -> str:
    """Return the SHA-256 of a file, which is read once per process unless it changes.

    Time, size and inode of the file are part of the key of the cache.
    """
    return file_digest(path)


def earlier_results(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entry of a new state with the earlier results in a state; empty without them."""
    kept = state if state.get("finished") is True else state.get(_EARLIER)
    valid = isinstance(kept, dict) and isinstance(kept.get(FILES), dict)
    return {_EARLIER: kept} if valid else {}


def remove_damaged(folder: Path) -> None:
    """Remove damaged earlier results of a stage that runs again, so that none remains.

    Raises:
        DataError: a result cannot be read. It may be intact, so it is not removed.
    """
    for earlier in earlier_results(read_state(folder / STATE)).values():
        for name in _names(earlier):
            if (folder / name).is_file() and _differs(folder / name, earlier):
                (folder / name).unlink()


def restart(folder: Path) -> str:
    """Remove the checkpoints of a stage that was resumed, if tensors are damaged or not written.

    A stage that resumes from its last checkpoint does not write the results from before it, such
    as snapshots of an average. So it must run from its beginning to write them. Other files, such
    as pictures, are not worth a second training.

    Returns:
        Names of these results, separated by commas; empty if there are none.

    Raises:
        DataError: a result cannot be read. Nothing is removed.
    """
    names = {name for name in results_in(folder) if _is_damaged_file(folder / name)}
    for earlier in earlier_results(read_state(folder / STATE)).values():
        absent = _names(earlier) - results_in(folder).keys()
        names |= {name for name in absent if name.endswith(_TENSORS)}
    if names:
        for path in list(folder.iterdir()):
            if path.name in names or is_checkpoint(path):
                path.unlink()
    return ", ".join(sorted(names))


def require_readable(folder: Path) -> None:
    """Raise DamagedError if the state and all checkpoints of a stage are damaged.

    The stage may have run for days, so it does not start from its beginning without notice.
    """
    checkpoints = sorted(path for path in folder.glob("*") if is_checkpoint(path))
    if checkpoints and not read_state(folder / STATE) and not any(map(_has_header, checkpoints)):
        raise DamagedError(
            f"{folder} must have a valid state or a valid checkpoint, got damaged files; delete "
            f"{' and '.join(map(str, checkpoints))} to start this stage from its beginning"
        )


def _has_header(path: Path) -> bool:
    """Return whether the header of a file of tensors is intact, or may be intact."""
    try:
        tensors.metadata(path)
    except DataError as error:
        return isinstance(error.__cause__, OSError)
    return True


def _names(earlier: Mapping[str, Any]) -> set[str]:
    """Return the names of earlier results; a damaged state must not refer to other folders."""
    return {name for name in earlier[FILES] if Path(name).name == name}


def _differs(path: Path, earlier: Mapping[str, Any]) -> bool:
    """Return whether an earlier result differs from what was written."""
    digests = earlier.get(DIGESTS)
    if isinstance(digests, dict) and path.name in digests:
        return bool(_digest_of(path) != digests[path.name])
    return bool(path.stat().st_size != earlier[FILES][path.name])


def _is_damaged_file(path: Path) -> bool:
    """Return whether a file of tensors does not have the content that was written."""
    if path.suffix != _TENSORS:
        return False
    try:
        tensors.load(path)
    except DataError as error:
        if isinstance(error.__cause__, OSError):
            raise  # of the disk; the file may be intact
        return True
    return False
