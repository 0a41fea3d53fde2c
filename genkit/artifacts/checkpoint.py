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
    """Write the newest checkpoint of a folder; older ones move one place down.

    Args:
        folder: folder of the stage.
        state: tensors.
        numbers: numbers.
        described: further metadata, by which others can read a part of the file; see
            :meth:`genkit.artifacts.record.Record.checkpoint`.
    """
    # From the oldest on, so that a kill between two renames loses none but the oldest.
    for age in range(KEPT - 1, 0, -1):
        newer = folder / checkpoint_name(age - 1)
        if newer.exists():
            newer.replace(folder / checkpoint_name(age))
    content = {"numbers": json.dumps(dict(numbers)), **described}
    tensors.save(folder / checkpoint_name(0), state, content)


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
            return Checkpoint(state, dict(json.loads(metadata["numbers"])))
        except (DataError, KeyError, TypeError, ValueError) as error:
            what = "no numbers" if isinstance(error, KeyError) else str(error)
            reason = reason or f"{path} must be a checkpoint, and is damaged: {what}"
    if reason:
        listed = " and ".join(map(str, paths))
        raise DataError(f"{reason}; delete {listed} to start this stage from its beginning")
    return None
