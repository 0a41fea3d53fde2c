"""Load a stage of a recipe for a measurement; earlier stages are checked but not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, cast

from genkit.errors import Code, UsageError
from genkit.interfaces import Average, Context, Network, Objective, Optimizer, Stage
from genkit.parts.precision import Precision
from genkit.plugin.manager import Plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.settings import near_match, quote, toml_value
from genkit.train.pairing import PairStream
from genkit.train.trainer import Trainer
from genkit.types import DataSpec


class TrainStage(Protocol):
    """The part of the stage ``train`` that is used; other plugins cannot register this name."""

    network: Network
    objective: Objective
    optimizer: Optimizer
    average: Average
    batch_size: int
    micro_batch: int | None
    pool_size: int | None
    pools_ahead: int
    precision: Precision

    @property
    def pool(self) -> int:
        """Number of images coupled together."""
        ...

    def spec(self) -> DataSpec:
        """Return the specification of the data."""
        ...

    def stream(self, context: Context, total: int) -> PairStream:
        """Return the stream of pairs on which the stage trains."""
        ...

    def trainer(self, context: Context, spec: DataSpec) -> Trainer:
        """Return a trainer with a newly initialized network."""
        ...


def with_settings(stage: TrainStage, settings: Mapping[str, Any]) -> TrainStage:
    """Return a copy of a stage with changed settings."""
    return cast(TrainStage, replace(cast(Any, stage), **settings))


def load_stages(
    source: Source,
    plugins: Plugins,
    overrides: Sequence[str],
    use: str,
    stage_id: str | None,
    data: Mapping[str, Any] | None,
) -> tuple[str, Mapping[str, Stage]]:
    """Load a stage and all earlier stages; later stages are ignored.

    Args:
        source: recipe.
        plugins: plugins with the components of the recipe.
        overrides: arguments ``KEY=VALUE`` of ``--set``.
        use: component of the stage, such as ``train``.
        stage_id: id of the stage; None for the first stage with this component.
        data: table of a data set that replaces the data set of the recipe; None to keep the latter.

    Returns:
        Id of the stage, and a dict from the ids of all loaded stages to the stages.

    Raises:
        UsageError: the stage does not exist.
        RecipeError: the loaded stages have mistakes.
    """
    raw = source.table.get("stage")
    stages = [stage for stage in raw if isinstance(stage, dict)] if isinstance(raw, list) else []
    ids = [str(stage.get("id")) for stage in stages if stage.get("use") == use]
    chosen = stage_id or next(iter(ids), None)
    if chosen not in ids:
        hint = near_match(stage_id, ids) or f"its {use} stages: {', '.join(ids) or 'none'}"
        required = f"{use} stage" + (f" {quote(stage_id)}" if stage_id else "")
        raise UsageError(f"{source.label} must have a {required}; {hint}", Code.UNKNOWN_STAGE)
    index = next(i for i, stage in enumerate(stages) if stage.get("id") == chosen)
    shortened = replace(source, table={**source.table, "stage": stages[: index + 1]})
    if data is not None:
        owners = ("", f"{chosen}.") if "data" in stages[index] else ("",)
        overrides = [*overrides, *(f"{owner}data={toml_value(data)}" for owner in owners)]
    return chosen, load_recipe(shortened, plugins, overrides).stages
