"""The published noise-conditioned classifiers of guided-diffusion become classifiers of genkit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from genkit.errors import DataError
from genkit.interfaces import Imported, Importer
from genkit.pickles import read_state_dict
from genkit.types import DataSpec
from genkit_dg.adm_classifier import AdmClassifier
from genkit_dg.adm_names import architecture, renamed


@dataclass(frozen=True, kw_only=True)
class AdmClassifierImporter(Importer):
    """Reads classifiers of guided-diffusion, such as ``64x64_classifier.pt``.

    Those that the code of discriminator guidance downloads are among them:
    ``32x32_classifier.pt`` was trained by its authors.
    """

    source = "arXiv 2105.05233 and arXiv 2211.17091, the layout of their published classifiers"
    snapshots = "*.pt"

    def read(self, path: Path) -> Imported:
        arrays = read_state_dict(path)
        try:
            weights = renamed({n: torch.from_numpy(a).float() for n, a in arrays.items()})
            found = architecture(weights)
        except DataError as error:
            raise DataError(f"{path}: {error}", error.code) from error
        spec = DataSpec(found.pop("shape"), classes=found.pop("outputs"))
        named = {f"encoder.{name}": weight for name, weight in weights.items()}
        return Imported(AdmClassifier(**found), spec, named, images=0)
