"""Load the subjects of an audit: train stages of a recipe or a run, or the file of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, cast, runtime_checkable

import torch

from genkit.artifacts import Artifact, DenoiserFile, NetworkFile, Run
from genkit.artifacts.layout import RESOLVED
from genkit.artifacts.runs import is_run
from genkit.errors import Code, DataError, UsageError
from genkit.interfaces import Context, Trained
from genkit.networks import load_network
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Registry
from genkit.random import generator
from genkit.recipe.recipe import Recipe, load_recipe
from genkit.recipe.source import read_source
from genkit.settings import near_match, quote
from genkit.tensors import file_digest
from genkit.train.coupling import pairs_to_measure
from genkit.train.pairing import PairStream
from genkit_audit.measure import Audit, audit_of

A = TypeVar("A", bound=Artifact)


@runtime_checkable
class PairedStage(Protocol):
    """Interface of stages that train on pairs, such as ``train``.

    Stages of plugins that implement it can be audited as well.
    """

    images: int
    pools_ahead: int

    @property
    def pool(self) -> int:
        """Number of images coupled together."""
        ...

    def stream(self, context: Context, total: int) -> PairStream:
        """Return the stream of pairs on which the stage trains."""
        ...


def recorded_audit(path: Path) -> Audit:
    """Return the audit of the coupling that is recorded in the file of a network.

    Raises:
        DataError: the file is corrupt, or contains no coupling.
    """
    coupling = NetworkFile.outline(path).coupling
    if coupling is None:
        raise DataError(
            f"{path} must contain the coupling of its training, which imported files do not; audit "
            "the recipe of the training instead",
            Code.NOT_FOUND,
        )
    return Audit(str(path), coupling, coupling.statistics)


def audit_stages(
    target: str,
    plugins: Plugins,
    overrides: Sequence[str],
    stage_id: str | None,
    device: torch.device,
    pairs: int | None,
    pools: int | None,
) -> list[Audit]:
    """Measure the first pairs of train stages.

    Args:
        target: recipe, or folder of a run.
        plugins: plugins with the components of the recipe.
        overrides: arguments ``KEY=VALUE`` of ``--set``.
        stage_id: id of the stage to audit; None for all stages that train a denoiser.
        device: device of the coupler.
        pairs: number of pairs; None for as many pairs as training measures.
        pools: number of pools, instead of ``pairs``; None to use ``pairs``.

    Raises:
        RecipeError: the recipe has mistakes.
        UsageError: the stage does not exist, or requires the result of an earlier stage.
        DataError: there are too few pairs, or the data is missing or corrupt.
    """
    run = Run.load(Path(target)) if is_run(Path(target)) else None
    source = read_source(run.folder / RESOLVED if run else target)
    recipe = load_recipe(source, plugins, overrides)
    audits = []
    for name in _select(recipe, stage_id):
        context = _AuditContext(device, name, recipe, run, plugins.registry)
        stage = cast(PairedStage, recipe.stages[name])
        count = pools * stage.pool if pools is not None else pairs
        total = max(stage.images, count or 0)
        stream = stage.stream(cast(Context, context), total)
        shape = stream.data.data.shape[1:]
        count = count or pairs_to_measure(shape, stage.pool, stage.images)
        audits.append(audit_of(f"{target}: {name}", stream, count, stage.pools_ahead))
    return audits


def _select(recipe: Recipe, stage_id: str | None) -> list[str]:
    """Return the ids of the train stages to audit."""
    paired = [name for name, stage in recipe.stages.items() if isinstance(stage, PairedStage)]
    if stage_id is None:
        denoisers = [name for name in paired if recipe.stages[name].output is DenoiserFile]
        if denoisers:
            return denoisers
        requirement = "a train stage of a denoiser"
    elif stage_id in paired:
        return [stage_id]
    else:
        requirement = f"a train stage {quote(stage_id)}"
    hint = near_match(stage_id, paired) or f"its train stages: {', '.join(paired) or 'none'}"
    raise UsageError(f"{recipe.source.label} must have {requirement}; {hint}", Code.UNKNOWN_STAGE)


@dataclass(frozen=True)
class _AuditContext:
    """The part of :class:`genkit.interfaces.Context` that is used to compute pairs.

    Attributes:
        device: device of the coupler.
        stage_id: id of the stage, on which the random numbers of its pairs depend.
        recipe: recipe of the stage.
        run: run from which finished stages are read; None for a recipe without a run.
        registry: registry of the components from which networks are built.
    """

    device: torch.device
    stage_id: str
    recipe: Recipe
    run: Run | None
    registry: Registry

    def generator(self, *purpose: str | int) -> torch.Generator:
        return generator(self.recipe.seed, self.stage_id, *purpose)

    def network(self, stage: str) -> Trained:
        return load_network(self._file(stage), self.registry, self.device)

    def read(self, stage: str, artifact: type[A]) -> A:
        return artifact.load(self._file(stage))

    def digest(self, stage: str) -> str:
        return file_digest(self._file(stage))

    def _file(self, stage: str) -> Path:
        """Return the path of the artifact of an earlier stage.

        Raises:
            UsageError: there is no run, or the stage is not finished.
        """
        artifact = self.recipe.stages[stage].output
        if self.run is None or artifact is None or not self.run.stage(stage).has(artifact):
            raise UsageError(
                f"the audit of stage {self.stage_id} requires the result of stage {stage}, got "
                f"{'a recipe' if self.run is None else 'an unfinished run'}; run the recipe, and "
                "audit the folder of the run",
                Code.NOT_FOUND,
            )
        return cast(Path, self.run.stage(stage).folder) / artifact.filename()
