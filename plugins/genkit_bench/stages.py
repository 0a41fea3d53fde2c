"""Stages of a recipe that are measured alone: what is above them is checked, and nothing is run."""

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
    """What is used of the stage ``train``, a name that no third-party plugin can take."""

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
        """Pairs that are coupled together."""
        ...

    def spec(self) -> DataSpec:
        """Return what the network must know of the data."""
        ...

    def stream(self, context: Context, total: int) -> PairStream:
        """Return the pairs to train on."""
        ...

    def trainer(self, context: Context, spec: DataSpec) -> Trainer:
        """Return the trainer of a freshly built network."""
        ...


def changed(stage: TrainStage, settings: Mapping[str, Any]) -> TrainStage:
    """Return a stage with other settings."""
    return cast(TrainStage, replace(cast(Any, stage), **settings))


def load_stages(
    source: Source,
    plugins: Plugins,
    overrides: Sequence[str],
    use: str,
    wanted: str | None,
    data: Mapping[str, Any] | None,
) -> tuple[str, Mapping[str, Stage]]:
    """Return the id of a stage, and it with the stages above; what stands below is not looked at.

    Args:
        source: the recipe.
        plugins: where components are found.
        overrides: ``KEY=VALUE``, as typed.
        use: kind of stage, such as ``train``.
        wanted: its id; the first of its kind where it is None.
        data: table of a data set that takes the place of the recipe's.

    Raises:
        UsageError: there is no such stage.
        RecipeError: of mistakes in what is left of the recipe.
    """
    raw = source.table.get("stage")
    stages = [stage for stage in raw if isinstance(stage, dict)] if isinstance(raw, list) else []
    ids = [str(stage.get("id")) for stage in stages if stage.get("use") == use]
    chosen = wanted or next(iter(ids), None)
    if chosen not in ids:
        hint = near_match(wanted, ids) or f"it has {', '.join(ids) or 'none'}"
        named = f"{use} stage" + (f" {quote(wanted)}" if wanted else "")
        raise UsageError(f"{source.label} has no {named}; {hint}", Code.UNKNOWN_STAGE)
    index = next(i for i, stage in enumerate(stages) if stage.get("id") == chosen)
    kept = replace(source, table={**source.table, "stage": stages[: index + 1]})
    if data is not None:
        owners = ("", f"{chosen}.") if "data" in stages[index] else ("",)
        overrides = [*overrides, *(f"{owner}data={toml_value(data)}" for owner in owners)]
    return chosen, load_recipe(kept, plugins, overrides).stages
