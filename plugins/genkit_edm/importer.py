"""Weights that EDM's reference implementation wrote become a denoiser of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from genkit.errors import DataError
from genkit.interfaces import Importer
from genkit.types import Imported
from genkit_edm.reference import network_from_reference, weights_from_reference
from genkit_edm.snapshot import read_snapshot


@dataclass(frozen=True, kw_only=True)
class EdmImporter(Importer):
    """Reads network snapshots and training states of EDM and of its forks, such as EDM-AOT."""

    source = "arXiv 2206.00364, the layout of its published networks"

    def read(self, path: Path) -> Imported:
        snapshot = read_snapshot(path)
        theirs = {name: torch.from_numpy(values) for name, values in snapshot.weights.items()}
        try:
            network, spec = network_from_reference(snapshot.precond, snapshot.arguments)
            weights = weights_from_reference(theirs, snapshot.precond, snapshot.arguments)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
            raise DataError(f"{path}: its arguments make no network: {reason}") from error
        notes = () if snapshot.averaged else ("these weights are not averaged: a training state's",)
        return Imported(network, spec, weights, snapshot.images, notes)
