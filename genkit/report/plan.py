"""Format a table of the stages of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from genkit.artifacts.layout import stage_folder
from genkit.field_types import Slot
from genkit.fields import fields_of
from genkit.interfaces import Component
from genkit.parts.text_table import Cells
from genkit.plugin.registry import Registry
from genkit.recipe.recipe import Recipe
from genkit.settings import quote


def plan_cells(
    recipe: Recipe,
    registry: Registry,
    run: Path | None = None,
    states: Mapping[str, str] = MappingProxyType({}),
) -> Cells:
    """Return a table of the stages of a recipe; the first two columns are number and id.

    Args:
        recipe: recipe without mistakes.
        registry: registry with its components.
        run: folder of the run; None to leave out the folders of the stages.
        states: map from the id of a stage to its state, such as ``finished`` for a stage that a
            run would skip.
    """
    cells = [("", "stage", "use", *(["writes to"] if run else []), "settings")]
    for number, (stage_id, stage) in enumerate(recipe.stages.items(), 1):
        state = f" ({states[stage_id]})" if stage_id in states else ""
        where = [f"{stage_folder(run, number, stage_id)}{state}"] if run else []
        facts = ", ".join(_facts(stage, registry))
        cells.append((str(number), stage_id, registry.name_of(stage), *where, facts))
    return cells


def _facts(component: Component, registry: Registry) -> Iterator[str]:
    """Yield the settings that differ from their defaults, and the names of components."""
    for field in fields_of(type(component)):
        value = getattr(component, field.name)
        parts = [part for leaf, part in field.type.leaves(value) if isinstance(leaf, Slot)]
        if parts:
            yield f"{field.name} {' + '.join(map(registry.name_of, parts))}"
        elif value != field.default:
            yield f"{field.name} {quote(value)}"
