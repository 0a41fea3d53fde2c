"""Importer of published noise-conditioned classifiers in the format of guided-diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from genkit.errors import DataError
from genkit.interfaces import Imported, Importer
from genkit.pickles import read_state_dict
from genkit.types import DataSpec
from genkit_dg.adm_classifier import AdmClassifier
from genkit_dg.adm_names import infer_architecture, rename


@dataclass(frozen=True, kw_only=True)
class AdmClassifierImporter(Importer):
    """Imports classifiers of guided-diffusion, such as ``64x64_classifier.pt``.

    This includes ``32x32_classifier.pt``, which the authors of discriminator guidance trained.
    """

    source = "arXiv 2105.05233 and arXiv 2211.17091, format of their published classifiers"
    snapshots = "*.pt"

    def read(self, path: Path) -> Imported:
        arrays = read_state_dict(path)
        try:
            weights = rename({n: torch.from_numpy(a).float() for n, a in arrays.items()})
            settings = infer_architecture(weights)
        except DataError as error:
            raise DataError(f"{path}: {error}", error.code) from error
        spec = DataSpec(settings.pop("shape"), classes=settings.pop("outputs"))
        state = {f"encoder.{name}": weight for name, weight in weights.items()}
        return Imported(AdmClassifier(**settings), spec, state, images=0)
