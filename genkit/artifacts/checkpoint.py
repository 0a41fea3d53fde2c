"""Checkpoints: from what a stage resumes. The two newest are kept, in case one is damaged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from genkit import tensors
from genkit.artifacts.layout import checkpoint_name
from genkit.errors import DataError

KEPT = 2
"""Checkpoints that are kept. A damaged one costs the work since the one before it."""

Numbers = Mapping[str, float]

_DAMAGE = (DataError, KeyError, TypeError, ValueError)


@dataclass(frozen=True)
class Checkpoint:
    """The state of a stage.

    Attributes:
        tensors: by name, on the CPU.
        numbers: by name.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, float]


def save(
    folder: Path, state: Mapping[str, Tensor], numbers: Numbers, described: Mapping[str, str]
) -> None:
    """Write the newest checkpoint of a folder; older sound ones move one place down.

    The new file is whole before an older one moves: a kill at any moment, or a full disk, leaves a
    sound checkpoint where there was one.

    Args:
        folder: folder of the stage.
        state: tensors.
        numbers: numbers.
        described: further metadata, by which others can read a part of the file; see
            :meth:`genkit.artifacts.record.Record.checkpoint`.
    """
    content = {"numbers": json.dumps(dict(numbers)), **described}
    written = folder / checkpoint_name(KEPT)  # a name that is never restored
    tensors.save(written, state, content)
    # From the oldest on, so that a kill between two renames loses none but the oldest.
    for age in range(KEPT - 1, 0, -1):
        newer = folder / checkpoint_name(age - 1)
        if _is_sound(newer):  # a damaged one must not replace the one to which a restore fell back
            newer.replace(folder / checkpoint_name(age))
    written.replace(folder / checkpoint_name(0))


def _is_sound(path: Path) -> bool:
    """Whether a checkpoint can be restored; its tensors are not read, for a cut file shows."""
    try:
        _numbers(tensors.metadata(path))
    except _DAMAGE:
        return False
    return True


def _numbers(metadata: Mapping[str, str]) -> dict[str, float]:
    return dict(json.loads(metadata["numbers"]))


def load(folder: Path) -> Checkpoint | None:
    """Return the newest sound checkpoint of a folder; None where there is none at all.

    Raises:
        DataError: all are damaged; the first reason is given.
    """
    places = [folder / checkpoint_name(age) for age in range(KEPT)]
    paths = [path for path in places if path.exists()]
    reason = ""
    for path in paths:
        try:
            state, metadata = tensors.load(path)
            return Checkpoint(state, _numbers(metadata))
        except _DAMAGE as error:
            what = "no numbers" if isinstance(error, KeyError) else str(error)
            reason = reason or f"{path} must be a checkpoint, and is damaged: {what}"
    if reason:
        listed = " and ".join(map(str, paths))
        raise DataError(f"{reason}; delete {listed} to start this stage from its beginning")
    return None
