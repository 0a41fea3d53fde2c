"""Samples, and how they were drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from genkit import tensors
from genkit.artifacts.artifact import Artifact
from genkit.errors import Code, DataError
from genkit.tensors import as_stored
from genkit.types import Batch


@dataclass(frozen=True)
class Samples(Artifact):
    """Samples that a stage drew.

    Images are kept as the published protocol scores them: clipped to [-1, 1] and rounded to
    8 bits. Floats that are given are converted; see :func:`genkit.tensors.as_stored`.

    Attributes:
        batch: ``[N, *shape]`` samples with their labels if any; images uint8, vectors float32.
        nfe: calls of the denoiser for each sample; their mean where a solver chooses its steps.
        guidance_nfe: calls of guidance networks for each sample, or their mean.
        denoiser: id of the stage that wrote the denoiser by which they were drawn; None where they
            come from elsewhere.
        facts: how they were drawn, by name, such as ``seeds`` and ``sampler``; part of the facts of
            every score.

    Raises:
        DataError: there is no sample, or one is not finite.
    """

    name = "samples"

    batch: Batch
    nfe: float
    guidance_nfe: float = 0
    denoiser: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.batch):
            raise DataError(
                "samples must be at least 1, got 0; draw one or more", Code.WRONG_LENGTH
            )
        stored = self.batch.with_data(as_stored(self.batch.data, "sample"))
        object.__setattr__(self, "batch", stored)

    def save(self, path: Path) -> None:
        named: dict[str, Tensor] = {"samples": self.batch.data}
        if self.batch.labels is not None:
            named["labels"] = self.batch.labels
        described = {
            "nfe": self.nfe,
            "guidance_nfe": self.guidance_nfe,
            "denoiser": self.denoiser,
            "facts": dict(self.facts),
        }
        tensors.save(path, named, {name: json.dumps(value) for name, value in described.items()})

    @classmethod
    def load(cls, path: Path) -> Samples:
        named, metadata = tensors.load(path)
        try:
            described = {name: json.loads(value) for name, value in metadata.items()}
            return cls(
                Batch(named["samples"], labels=named.get("labels")),
                _calls(described["nfe"]),
                _calls(described["guidance_nfe"]),
                described.get("denoiser"),
                dict(described.get("facts", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} must be a file of samples: {error!r} in its header") from error


def _calls(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"a number of calls must be a number, got {value!r}")
    return value
