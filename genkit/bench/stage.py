"""The stage of a recipe that is measured, with as little of the recipe as it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from genkit.errors import UsageError
from genkit.interfaces import Stage
from genkit.plugin.manager import Plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.settings import near_match, shown, toml_value


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
        named = f"{use} stage" + (f" {shown(wanted)}" if wanted else "")
        raise UsageError(f"{source.label} has no {named}; {hint}")
    index = next(i for i, stage in enumerate(stages) if stage.get("id") == chosen)
    kept = replace(source, table={**source.table, "stage": stages[: index + 1]})
    if data is not None:
        owners = ("", f"{chosen}.") if "data" in stages[index] else ("",)
        overrides = [*overrides, *(f"{owner}data={toml_value(data)}" for owner in owners)]
    return chosen, load_recipe(kept, plugins, overrides).stages
