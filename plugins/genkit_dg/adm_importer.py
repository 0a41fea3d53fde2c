"""Importer of published noise-conditioned classifiers in the format of guided-diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from genkit.errors import Code, DataError
from genkit.interfaces import Imported, Importer
from genkit.pickles import read_state_dict
from genkit.types import DataSpec
from genkit_dg.adm_classifier import AdmClassifier
from genkit_dg.adm_names import infer_architecture, rename

COSINE_SIZE = (64, 64)
"""Image size whose published classifier has the cosine schedule; all others have the linear one.

A file does not contain its schedule, and :class:`AdmClassifier` uses times of the linear one.
"""


@dataclass(frozen=True, kw_only=True)
class AdmClassifierImporter(Importer):
    """Imports classifiers of guided-diffusion with a linear noise schedule.

    Examples are ``32x32_classifier.pt``, which the authors of discriminator guidance trained, and
    ``128x128_classifier.pt``. ``64x64_classifier.pt`` is refused, since its time is that of the
    cosine schedule.
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
        if spec.shape[1:] == COSINE_SIZE:
            raise DataError(
                f"{path} must be a classifier with the linear noise schedule, got one of 64x64 "
                "images, which guided-diffusion trains with the cosine schedule; name a file for "
                "another image size",
                Code.WRONG_KIND,
            )
        state = {f"encoder.{name}": weight for name, weight in weights.items()}
        return Imported(AdmClassifier(**settings), spec, state, images=0)
