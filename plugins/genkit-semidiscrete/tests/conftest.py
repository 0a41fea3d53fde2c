from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch

from genkit.artifacts import Artifact, Record
from genkit.interfaces import Dataset
from genkit.random import derive_seed
from genkit.types import Batch, DataSpec
from genkit_semidiscrete.coupler import BoundSemidiscrete, Semidiscrete
from genkit_semidiscrete.potential import Potential
from genkit_semidiscrete.stage import FitPotential


class Held(Dataset):
    """A data set that consists of a batch, which is not a setting."""

    def __init__(self, batch: Batch) -> None:
        object.__setattr__(self, "batch", batch)

    def spec(self) -> DataSpec:
        labels = self.batch.labels
        classes = 0 if labels is None else int(labels.max()) + 1
        return DataSpec(tuple(self.batch.data.shape[1:]), classes=classes)

    def load(self, inputs: object) -> Batch:
        return self.batch


@dataclass
class Folder:
    """The part of a context that the stage uses; optionally requests a stop at one step."""

    folder: Path
    stop_at: int | None = None
    seed_of_run: int = 0
    step: int = 0

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @cached_property
    def record(self) -> Record:
        return Record("potential", self.folder, Potential)

    def read(self, stage: str, artifact: type[Artifact]) -> Artifact:
        return artifact.load(self.folder / artifact.filename())

    def seed(self, *purpose: str | int) -> int:
        return derive_seed(self.seed_of_run, "potential", *purpose)

    def advance(self, done: int, total: int, unit: str, **more: Any) -> None:
        self.step = more["step"]
        assert 0 <= done <= total

    def stop_requested(self) -> bool:
        return self.step == self.stop_at


class Fitter:
    """Fits potentials, each in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def place(self) -> Folder:
        self._count += 1
        folder = self._root / str(self._count)
        folder.mkdir()
        return Folder(folder)

    def stage(self, batch: Batch, **settings: Any) -> FitPotential:
        return FitPotential(data=Held(batch=batch), **({"batch_size": 512} | settings))

    def __call__(self, batch: Batch, **settings: Any) -> BoundSemidiscrete:
        """Return the coupler that is ready to pair a batch."""
        place = self.place()
        self.stage(batch, **settings).run(place)
        return Semidiscrete(potential="potential", by=settings.get("by", ())).bind(place)

    def rows(self, place: Folder) -> list[dict[str, float]]:
        text = (place.folder / "metrics.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    stopped = staticmethod(replace)


@pytest.fixture
def fit(tmp_path: Path) -> Fitter:
    return Fitter(tmp_path)
