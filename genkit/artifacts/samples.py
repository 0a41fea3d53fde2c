"""Samples and what they cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from genkit import tensors
from genkit.artifacts.artifact import Artifact
from genkit.errors import DataError
from genkit.types import Batch


@dataclass(frozen=True)
class Samples(Artifact):
    """Samples that a stage drew.

    Attributes:
        batch: ``[N, *shape]`` float32 samples, images in [-1, 1], with their labels if any.
        nfe: calls of the denoiser for each sample.
        guidance_nfe: calls of guidance networks for each sample.
        denoiser: id of the stage that wrote the denoiser by which they were drawn; None where they
            come from elsewhere.
    """

    name = "samples"

    batch: Batch
    nfe: int
    guidance_nfe: int = 0
    denoiser: str | None = None

    def save(self, path: Path) -> None:
        named: dict[str, Tensor] = {"samples": self.batch.data}
        if self.batch.labels is not None:
            named["labels"] = self.batch.labels
        facts = {"nfe": self.nfe, "guidance_nfe": self.guidance_nfe, "denoiser": self.denoiser}
        tensors.save(path, named, {name: json.dumps(value) for name, value in facts.items()})

    @classmethod
    def load(cls, path: Path) -> Samples:
        named, metadata = tensors.load(path)
        try:
            facts = {name: json.loads(value) for name, value in metadata.items()}
            batch = Batch(named["samples"], labels=named.get("labels"))
            denoiser = facts.get("denoiser")
            return cls(batch, int(facts["nfe"]), int(facts["guidance_nfe"]), denoiser)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} must be a file of samples: {error!r} in its header") from error
