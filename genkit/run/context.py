"""What a running stage is given: its folder, its seeds, and what earlier stages left."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from genkit.errors import PluginError
from genkit.interfaces import Component, Stage, Trained
from genkit.plugin.registry import Registry
from genkit.random import derive_seed
from genkit.recipe.encode import table
from genkit.run.fingerprint import reachable
from genkit.run.progress import Progress
from genkit.run.stages.sample import SAMPLES, load_samples
from genkit.settings import shown
from genkit.tensors import file_digest
from genkit.train.checkpoint import load_network
from genkit.types import Batch
from genkit.world import ALONE, World


@dataclass(frozen=True)
class StageContext:
    """Implements :class:`genkit.interfaces.Context` over a run folder.

    Attributes:
        stage_id: of the stage that runs.
        folder: where it writes.
        device: where it computes.
        run_seed: of the recipe.
        stages: all stages of the recipe by id.
        folders: of the finished stages by id.
        registry: for networks to be built again.
        progress: shows how far the stage is.
        stop_requested: whether the user asked any of the processes to stop.
        world: the processes that run the stage together.
    """

    stage_id: str
    folder: Path
    device: torch.device
    run_seed: int
    stages: Mapping[str, Stage]
    folders: Mapping[str, Path]
    registry: Registry
    progress: Progress
    stop_requested: Callable[[], bool]
    world: World = ALONE
    _loaded: dict[str, Trained] = field(default_factory=dict, repr=False)

    def seed(self, *purpose: str | int) -> int:
        return derive_seed(self.run_seed, self.stage_id, *purpose)

    def generator(self, *purpose: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed(*purpose))

    def stage(self, stage: str) -> Stage:
        self._require_declared(stage)
        return self.stages[stage]

    def describe(self, component: Component) -> dict[str, Any]:
        return table(self.registry, component)

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        self.progress.advance(done, total, unit, loss, step)

    def path(self, stage: str) -> Path:
        self._require_declared(stage)
        return self.folders[stage]

    def network(self, stage: str) -> Trained:
        if stage not in self._loaded:
            path = self._left(stage)
            self._loaded[stage] = load_network(path, self.registry, self.device)
        return self._loaded[stage]

    def samples(self, stage: str) -> Batch:
        return load_samples(self._left(stage)).batch

    def digest(self, stage: str) -> str:
        return file_digest(self._left(stage))

    def _require_declared(self, stage: str) -> None:
        """Raise PluginError unless the running stage names this one, or one that names it.

        Results of any other stage are not in the fingerprint: they could change, and what was
        computed from them would be kept.
        """
        if stage not in self._declared:
            raise PluginError(
                f"{type(self.stages[self.stage_id]).__name__} must name the stage "
                f"{shown(stage)} in a setting of a reference type, and does not; declare one such "
                "as genkit.settings.DenoiserRef"
            )

    @cached_property
    def _declared(self) -> frozenset[str]:
        return reachable(self.stage_id, self.stages)

    def _left(self, stage: str) -> Path:
        self._require_declared(stage)
        output = self.stages[stage].output
        name = SAMPLES if output == "samples" else f"{output}.safetensors"
        return self.folders[stage] / name
