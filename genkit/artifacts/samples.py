"""Define the artifact of samples, with the settings that they were drawn with."""

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

    Images are stored as 8-bit images, from which published scores are computed. Float images are
    clipped to [-1, 1] and rounded; see :func:`genkit.tensors.as_stored`.

    Attributes:
        batch: ``[N, *shape]`` samples, with labels if any; images are uint8 and vectors float32.
        nfe: number of calls of the denoiser per sample; the mean if the solver chooses its steps.
        guidance_nfe: number of calls of guidance networks per sample; the mean as for ``nfe``.
        denoiser: id of the stage that trained the denoiser; None if unknown.
        facts: map from the name of a sampling setting, such as ``seeds`` or ``sampler``, to its
            value; part of the facts of every score of the samples.

    Raises:
        DataError: there is no sample, or a value is not finite.
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
                "samples must contain at least 1 sample, got 0; draw one or more",
                Code.WRONG_LENGTH,
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
            raise DataError(
                f"{path} must be a file of samples, got an invalid header: {error!r}"
            ) from error


def _calls(value: object) -> float:
    if not isinstance(value, (int, float)):
        raise TypeError(f"a number of calls must be a number, got {value!r}")
    return value
