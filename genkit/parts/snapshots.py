"""Snapshots of the averaged weights during a training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genkit import tensors

_FILE = re.compile(r"snapshot-(\d+)\.safetensors")


def write_snapshot(folder: Path, images: int, weights: Mapping[str, Tensor]) -> None:
    """Write the state dict of a network after a number of training images."""
    tensors.save(folder / f"snapshot-{images:011d}.safetensors", weights, {})


def snapshots_in(folder: Path) -> dict[int, Path]:
    """Return the snapshots in the folder of a stage, by their increasing number of images."""
    named = ((path, _FILE.fullmatch(path.name)) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for path, match in named if match))
