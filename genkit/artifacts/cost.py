"""Define the artifact of sampling costs: time, network calls and floating-point operations."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genkit.artifacts.artifact import Artifact
from genkit.errors import Code, DataError
from genkit.files import read_json, write_json


@dataclass(frozen=True, kw_only=True)
class SamplingCost:
    """Mean cost of a sample.

    Attributes:
        settings: map from the key of a setting that a sweep varies to its value.
        images: number of samples.
        calls: map from the id of a network's stage to the number of its calls per sample.
        nfe_equivalents: operations of all networks per sample, divided by those of one call of the
            denoiser; None if either is unknown.
        gflop_per_image: operations of all networks per sample, including gradients of guidance, in
            10^9 multiplications and additions; None if they cannot be counted.
        gflop_per_call: operations of one call of the denoiser, in the same unit; None if they
            cannot be counted.
        seconds_per_image: time of a process divided by the number of samples that it drew; None if
            no sample was timed.
        images_timed: number of timed samples, without samples drawn before the stage was resumed.
        device: name of the device and of its hardware.
        threads: number of CPU threads per process.
        processes: number of processes.
        batch_size: number of samples drawn at a time; None if the stage has no such setting.
        notes: reasons why operations are not counted.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int
    calls: Mapping[str, float]
    nfe_equivalents: float | None
    gflop_per_image: float | None
    gflop_per_call: float | None
    seconds_per_image: float | None
    images_timed: int
    device: str
    threads: int
    processes: int
    batch_size: int | None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SamplingCosts(Artifact):
    """Sampling costs of a stage.

    They have their own file, since measured times differ between runs, while the files of samples
    and scores are byte-identical.

    Attributes:
        rows: cost of the samples of a stage, or one cost for each combination of a sweep.
    """

    name = "cost"
    suffix = ".json"

    rows: Sequence[SamplingCost]

    def save(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> SamplingCosts:
        try:
            content = read_json(path)
            return cls([SamplingCost(**row) for row in content["rows"]])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} must be a file of costs, got {error!r}; delete it to report scores "
                "without costs",
                Code.UNREADABLE,
            ) from error
