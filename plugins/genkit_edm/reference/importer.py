"""Importer of networks from the reference implementations of EDM and EDM2."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from genkit.errors import Code, DataError
from genkit.interfaces import Imported, Importer
from genkit_edm.reference.networks import from_reference
from genkit_edm.reference.snapshot import Snapshot, read_snapshot


@dataclass(frozen=True, kw_only=True)
class EdmImporter(Importer):
    """Imports network snapshots of EDM, of EDM2 and of forks such as EDM-AOT."""

    source = "arXiv 2206.00364 and arXiv 2312.02696, format of their published networks"
    snapshots = "*.pkl"

    def read(self, path: Path) -> Imported:
        snapshot = read_snapshot(path)
        tensors = {name: torch.from_numpy(values) for name, values in snapshot.weights.items()}
        try:
            network, spec, weights = from_reference(tensors, snapshot.precond, snapshot.arguments)
        except DataError as error:
            raise DataError(f"{path}: {error}", error.code) from error
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            raise DataError(
                f"{path}: no network can be built from its arguments: {reason}", Code.UNREADABLE
            ) from error
        notes = tuple(_notes(snapshot))
        return Imported(network, spec, weights, snapshot.images, notes, snapshot.ema_length)


def _notes(snapshot: Snapshot) -> Iterator[str]:
    if not snapshot.averaged:
        yield "the weights are the raw training weights, not averaged"
    if snapshot.encoder not in ("", "StandardRGBEncoder"):
        yield (
            f"the network generates latents of {snapshot.encoder} instead of images; genkit has no "
            "decoder for them"
        )
