"""Write and read checkpoints of a stage. The two newest are kept, in case one is damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from genkit import tensors
from genkit.artifacts.layout import checkpoint_name
from genkit.errors import Code, DamagedError, DataError

KEPT = 2
"""Number of checkpoints kept. If the newest is damaged, the stage resumes from the one before."""

FINGERPRINT = "fingerprint"
"""Key of the metadata with the fingerprint of the stage, in case its state file is damaged."""

Numbers = Mapping[str, float]

_DAMAGE = (DataError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a stage.

    Attributes:
        tensors: map from name to tensor on the CPU.
        numbers: map from name to number.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, float]


def save(
    folder: Path,
    state: Mapping[str, Tensor],
    numbers: Numbers,
    described: Mapping[str, str],
    *,
    trusted: bool = False,
) -> None:
    """Write the newest checkpoint of a folder, and rename older valid ones.

    The new file is complete before an older one is renamed, so that after a kill or on a full disk
    a valid checkpoint remains.

    Args:
        folder: folder of the stage.
        state: map from name to tensor.
        numbers: map from name to number.
        described: metadata of a network in the file; see
            :meth:`genkit.artifacts.record.Record.checkpoint`.
        trusted: whether this process wrote the newest checkpoint, of which only the header is then
            read again.
    """
    content = {"numbers": json.dumps(dict(numbers)), **described}
    written = folder / checkpoint_name(KEPT)  # a name that is never restored
    tensors.save(written, state, content)
    # The oldest is renamed first, so that a kill between two renames loses only the oldest.
    for age in range(KEPT - 1, 0, -1):
        newer = folder / checkpoint_name(age - 1)
        # A damaged file must not replace the one that was restored instead.
        if _is_valid(newer, header_only=trusted):
            newer.replace(folder / checkpoint_name(age))
    written.replace(folder / checkpoint_name(0))


def _is_valid(path: Path, *, header_only: bool) -> bool:
    """Return whether a checkpoint can be restored; the header detects a truncated file."""
    try:
        _numbers(tensors.metadata(path) if header_only else tensors.load(path)[1])
    except _DAMAGE:
        return False
    return True


def _numbers(metadata: Mapping[str, str]) -> dict[str, float]:
    return dict(json.loads(metadata["numbers"]))


def fingerprint(folder: Path) -> str | None:
    """Return the fingerprint in the newest checkpoint with a readable header; None without one."""
    for age in range(KEPT):
        try:
            return tensors.metadata(folder / checkpoint_name(age))[FINGERPRINT]
        except _DAMAGE:
            continue
    return None


def load(folder: Path) -> Checkpoint | None:
    """Return the newest valid checkpoint of a folder; None if there is none.

    Raises:
        DamagedError: all checkpoints are damaged; the message contains the first reason.
        DataError: a checkpoint cannot be read, or there is a folder at its path.
    """
    places = [folder / checkpoint_name(age) for age in range(KEPT)]
    paths = [path for path in places if path.exists()]
    reason = ""
    for path in paths:
        if path.is_dir():  # which no later checkpoint can replace
            raise DataError(f"{path} must be a file, got a folder; move it", Code.WRONG_KIND)
        try:
            state, metadata = tensors.load(path)
            return Checkpoint(state, _numbers(metadata))
        except _DAMAGE as error:
            if isinstance(error.__cause__, OSError):
                raise  # the file may be intact, and an older one would replace it
            what = "it has no numbers" if isinstance(error, KeyError) else str(error)
            reason = reason or f"{path} must be a checkpoint, got a damaged file: {what}"
    if reason:
        listed = " and ".join(map(str, paths))
        raise DamagedError(f"{reason}; delete {listed} to start this stage from its beginning")
    return None
