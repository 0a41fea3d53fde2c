"""What is audited: train stages of a recipe or a run, or the file of a network."""

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
    """A stage that trains on pairs, such as ``train``: any stage with these is audited."""

    images: int
    pools_ahead: int

    @property
    def pool(self) -> int:
        """Pairs that are coupled together."""
        ...

    def stream(self, context: Context, total: int) -> PairStream:
        """Return the pairs to train on."""
        ...


def recorded_audit(path: Path) -> Audit:
    """Return what the file of a network holds of its coupling.

    Raises:
        DataError: the file is damaged, or nothing is known of the coupling.
    """
    coupling = NetworkFile.outline(path).coupling
    if coupling is None:
        raise DataError(
            f"{path} must hold what is known of its training coupling, got a file without it, as "
            "imported ones are; audit the recipe of its training instead",
            Code.NOT_FOUND,
        )
    return Audit(str(path), coupling, coupling.statistics)


def audits_of_stages(
    target: str,
    plugins: Plugins,
    overrides: Sequence[str],
    wanted: str | None,
    device: torch.device,
    pairs: int | None,
    pools: int | None,
) -> list[Audit]:
    """Measure the pairs of train stages, those with which each training begins.

    Args:
        target: recipe, or folder of a run.
        plugins: where components are found.
        overrides: ``KEY=VALUE``, as typed.
        wanted: id of a stage; None for all that train a denoiser.
        device: where pairs are computed.
        pairs: number of pairs; None for as many as the training measures.
        pools: number of pools instead; None for the number of pairs.

    Raises:
        RecipeError: of mistakes in the recipe.
        UsageError: there is no such stage, or it requires the result of an earlier one.
        DataError: there are too few pairs, or the data is missing or damaged.
    """
    run = Run.load(Path(target)) if is_run(Path(target)) else None
    source = read_source(run.folder / RESOLVED if run else target)
    recipe = load_recipe(source, plugins, overrides)
    found = []
    for chosen in _chosen(recipe, wanted):
        context = _AuditContext(device, chosen, recipe, run, plugins.registry)
        stage = cast(PairedStage, recipe.stages[chosen])
        count = pools * stage.pool if pools is not None else pairs
        total = max(stage.images, count or 0)
        stream = stage.stream(cast(Context, context), total)
        shape = stream.data.data.shape[1:]
        count = count or pairs_to_measure(shape, stage.pool, stage.images)
        found.append(audit_of(f"{target}: {chosen}", stream, count, stage.pools_ahead))
    return found


def _chosen(recipe: Recipe, wanted: str | None) -> list[str]:
    """Return ids of train stages."""
    trained = [name for name, stage in recipe.stages.items() if isinstance(stage, PairedStage)]
    if wanted is None:
        denoisers = [s for s in trained if recipe.stages[s].output is DenoiserFile]
        if denoisers:
            return denoisers
        what = "a train stage of a denoiser"
    elif wanted in trained:
        return [wanted]
    else:
        what = f"a train stage {quote(wanted)}"
    hint = near_match(wanted, trained) or f"its train stages: {', '.join(trained) or 'none'}"
    raise UsageError(f"{recipe.source.label} must have {what}; {hint}", Code.UNKNOWN_STAGE)


@dataclass(frozen=True)
class _AuditContext:
    """As much of :class:`genkit.interfaces.Context` as pairing needs.

    Attributes:
        device: where to compute.
        stage_id: id of the stage, whose pairs are those of its training.
        recipe: recipe of the stage.
        run: run whose finished stages are read; None for a recipe alone.
        registry: for networks to be built again.
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
        """Return the file that an earlier stage wrote.

        Raises:
            UsageError: there is no run, or the stage is not finished.
        """
        written = self.recipe.stages[stage].output
        if self.run is None or written is None or not self.run.stage(stage).has(written):
            raise UsageError(
                f"stage {self.stage_id} must have the result of stage {stage} to be audited, got "
                f"{'a recipe' if self.run is None else 'an unfinished run'}; run the recipe, and "
                "audit the folder of the run",
                Code.NOT_FOUND,
            )
        return cast(Path, self.run.stage(stage).folder) / written.filename()
