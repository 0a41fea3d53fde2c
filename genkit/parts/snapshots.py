"""Snapshots of the averaged weights, written during training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from genkit import tensors

_FILE = re.compile(r"snapshot-(\d+)\.safetensors")


def write_snapshot(folder: Path, images: int, weights: Mapping[str, Tensor]) -> None:
    """Write a snapshot: the state dict of a network after a number of training images."""
    tensors.save(folder / f"snapshot-{images:011d}.safetensors", weights, {})


def snapshots_in(folder: Path) -> dict[int, Path]:
    """Return a sorted dict from number of images to path of the snapshots in a stage's folder."""
    named = ((path, _FILE.fullmatch(path.name)) for path in folder.iterdir())
    return dict(sorted((int(match[1]), path) for path, match in named if match))
