"""Cost of samples: time, network calls and arithmetic."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genkit.artifacts.artifact import Artifact
from genkit.errors import Code, DataError
from genkit.files import write_json


@dataclass(frozen=True, kw_only=True)
class SamplingCost:
    """Mean cost of a sample.

    Attributes:
        settings: settings that a sweep varied, by key path.
        images: number of samples.
        calls: network calls for each sample, by the id of the stage that wrote the network.
        nfe_equivalents: arithmetic of all networks over that of one call of the denoiser; None
            where either is unknown.
        gflop_per_image: 10^9 products and sums of all networks for each sample, gradients of
            guidance included; None where they cannot be counted.
        gflop_per_call: the same for one call of the denoiser.
        seconds_per_image: time for which one process draws, divided by the samples that it draws;
            None where none was timed.
        images_timed: samples over which seconds were measured; those that a killed run had drawn
            are not among them.
        device: device, with the name of the hardware.
        threads: CPU threads of each process.
        processes: processes that drew, each at the time for which it counts.
        batch_size: samples drawn at a time; None where the stage has no such setting.
        notes: what is not counted, and why.
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
    """The cost of each row of samples or scores of a stage.

    It lies beside what a stage writes, in a file of its own: what it holds is measured, and differs
    from run to run, while samples and scores are the same bytes.

    Attributes:
        rows: one for the samples of a stage, or for each combination of a sweep.
    """

    name = "cost"
    suffix = ".json"

    rows: Sequence[SamplingCost]

    def save(self, path: Path) -> None:
        write_json(path, dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> SamplingCosts:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls([SamplingCost(**row) for row in content["rows"]])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} must be a file of costs, and is unreadable: {error!r}; delete it, and "
                "scores are reported without their cost",
                Code.UNREADABLE,
            ) from error
