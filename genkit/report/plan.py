"""Format a table of the stages of a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from genkit.artifacts.layout import stage_folder
from genkit.field_types import Slot
from genkit.fields import fields_of
from genkit.interfaces import Component
from genkit.parts.text_table import Cells
from genkit.plugin.registry import Registry
from genkit.recipe.recipe import Recipe
from genkit.settings import quote


def plan_cells(recipe: Recipe, registry: Registry) -> Cells:
    """Return a table of the stages of a recipe; the first two columns are number and id.

    Args:
        recipe: recipe without mistakes.
        registry: registry with its components.
    """
    cells = [("", "stage", "use", "settings")]
    for number, (stage_id, stage) in enumerate(recipe.stages.items(), 1):
        facts = ", ".join(_facts(stage, registry))
        cells.append((str(number), stage_id, registry.name_of(stage), facts))
    return cells


def stages_json(
    recipe: Recipe, registry: Registry, run: Path, states: Mapping[str, str]
) -> list[dict[str, str]]:
    """Return the stages of a recipe in a run folder as values for JSON.

    Args:
        recipe: recipe without mistakes.
        registry: registry with its components.
        run: folder of the run.
        states: map from the id of a stage to its state, see
            :func:`genkit.run.engine.stage_states`.
    """
    return [
        {
            "id": stage_id,
            "use": registry.name_of(stage),
            "state": states[stage_id],
            "folder": str(stage_folder(run, number, stage_id)),
        }
        for number, (stage_id, stage) in enumerate(recipe.stages.items(), 1)
    ]


def _facts(component: Component, registry: Registry) -> Iterator[str]:
    """Yield the settings that differ from their defaults, and the names of components."""
    for field in fields_of(type(component)):
        value = getattr(component, field.name)
        parts = [part for leaf, part in field.type.leaves(value) if isinstance(leaf, Slot)]
        if parts:
            yield f"{field.name} {' + '.join(map(registry.name_of, parts))}"
        elif value != field.default:
            yield f"{field.name} {quote(value)}"
