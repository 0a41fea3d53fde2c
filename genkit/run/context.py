"""Provide a running stage with its folder, seeds, and the artifacts of earlier stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from genkit.artifacts import Artifact, NetworkFile, Record, SamplingCost, SamplingCosts
from genkit.designs import references
from genkit.errors import PluginError
from genkit.interfaces import Component, FunctionCallback, Stage, Trained
from genkit.networks import load_network
from genkit.plugin.registry import Registry
from genkit.random import derive_seed
from genkit.recipe.encode import table
from genkit.run.fingerprint import reachable
from genkit.run.progress import Progress
from genkit.settings import quote
from genkit.tensors import file_digest
from genkit.world import SINGLE_PROCESS, World

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True)
class StageContext:
    """Implements :class:`genkit.interfaces.Context` over a run folder.

    Attributes:
        stage_id: id of the running stage.
        folder: folder of the stage.
        record: record that writes the artifact, pictures, rows and checkpoints of the stage.
        device: device of the computation.
        run_seed: seed of the recipe.
        stages: map from id to stage, for all stages of the recipe.
        folders: map from id to folder, for the stages that were opened so far.
        registry: registry with the components of networks.
        progress: display of the position in the stage.
        stop_requested: function that returns whether a stop was requested on any rank.
        world: processes that run the stage.
        functions: functions of the caller's script that a training stage calls.
    """

    stage_id: str
    folder: Path
    record: Record
    device: torch.device
    run_seed: int
    stages: Mapping[str, Stage]
    folders: Mapping[str, Path]
    registry: Registry
    progress: Progress
    stop_requested: Callable[[], bool]
    world: World = SINGLE_PROCESS
    functions: Sequence[FunctionCallback] = ()
    _loaded: dict[str, Trained] = field(default_factory=dict, repr=False)
    _warned: set[str] = field(default_factory=set, repr=False)

    def seed(self, *purpose: str | int) -> int:
        return derive_seed(self.run_seed, self.stage_id, *purpose)

    def generator(self, *purpose: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed(*purpose))

    def stage(self, stage: str) -> Stage:
        self._require_declared(stage)
        return self.stages[stage]

    def results(self, stage: str) -> Path:
        self._require_declared(stage)
        return self.folders[stage]

    def costs(self, stage: str) -> Sequence[SamplingCost]:
        self._require_declared(stage)
        path = self.folders[stage] / SamplingCosts.filename()
        return SamplingCosts.load(path).rows if path.is_file() else []

    def describe(self, component: Component) -> dict[str, Any]:
        return table(self.registry, component)

    def single_process(self) -> StageContext:
        return replace(self, world=SINGLE_PROCESS, stop_requested=lambda: False)

    def warn(self, text: str) -> None:
        if self.world.is_main and text not in self._warned:
            self._warned.add(text)
            self.record.warn(text)
            self.progress.warn(f"{self.stage_id}: {text}")

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        self.progress.advance(done, total, unit, loss, step)

    def network(self, stage: str) -> Trained:
        if stage not in self._loaded:
            path = self._file(stage, NetworkFile)
            self._loaded[stage] = load_network(path, self.registry, self.device)
        return self._loaded[stage]

    def read(self, stage: str, artifact: type[A]) -> A:
        return artifact.load(self._file(stage, artifact))

    def digest(self, stage: str) -> str:
        return file_digest(self._file(stage))

    def _require_declared(self, stage: str) -> None:
        """Raise PluginError unless the running stage refers to a stage, directly or indirectly.

        The results of all other stages are not part of the fingerprint, so that a change of them
        would be missed.
        """
        if stage not in self._declared:
            raise PluginError(
                f"{self.record.called} must refer to the stage {quote(stage)} in a setting of a "
                "reference type; declare one such as genkit.artifacts.DenoiserRef"
            )

    @cached_property
    def _declared(self) -> frozenset[str]:
        # References of callbacks are included, although the stage's result does not depend on them.
        named = set(references(self.stages[self.stage_id]))
        return frozenset(named).union(*(reachable(name, self.stages) for name in named))

    def _file(self, stage: str, artifact: type[Artifact] | None = None) -> Path:
        """Return the file of a stage's artifact.

        Raises:
            PluginError: the stage writes no artifact of this type, or the running stage does not
                refer to it.
        """
        self._require_declared(stage)
        written = self.stages[stage].output
        if written is None or (artifact and not issubclass(written, artifact)):
            wanted = artifact.__name__ if artifact else "a file"
            raise PluginError(
                f"{self.record.called} must read the artifact that the stage {quote(stage)} "
                f"writes, {written.__name__ if written else 'none'}, got {wanted}; refer to a "
                "stage that writes it"
            )
        return self.folders[stage] / written.filename()
