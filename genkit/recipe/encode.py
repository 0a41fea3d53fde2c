"""Encode components as recipe tables, with all defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from genkit.fields import Field, Settings, fields_of
from genkit.interfaces import Component
from genkit.plugin.registry import Registry
from genkit.recipe.head import Head
from genkit.recipe.paths import RecipePath
from genkit.recipe.recipe import Recipe


def table(registry: Registry, component: Component, *, result_only: bool = False) -> dict[str, Any]:
    """Return the table from which a component can be decoded again.

    Args:
        registry: registry with the names of components.
        component: component, with the components in its settings.
        result_only: whether to leave out settings that change neither weights nor samples.

    Returns:
        Dict with ``use`` and the value of every field, as TOML values; fields that are None are
        left out.

    Raises:
        PluginError: a component is not registered.
    """
    return {
        "use": registry.name_of(component),
        **_fields(registry, component, fields_of(type(component)), result_only=result_only),
    }


def resolved(recipe: Recipe, registry: Registry) -> dict[str, Any]:
    """Return the table of a recipe with all defaults, from which the same recipe is decoded."""
    top = _fields(registry, recipe, fields_of(Head), result_only=False)
    stages = [{"id": i, **table(registry, stage)} for i, stage in recipe.stages.items()]
    return {**top, "stage": stages}


def _fields(
    registry: Registry, holder: Any, fields: Iterable[Field], *, result_only: bool
) -> dict[str, Any]:
    return {
        field.name: _plain(registry, value, result_only=result_only)
        for field in fields
        if (value := getattr(holder, field.name)) is not None
        and (field.setting.affects_result or not result_only)
    }


def _plain(registry: Registry, value: Any, *, result_only: bool) -> Any:
    if isinstance(value, RecipePath):
        return value.written if result_only else str(value)
    if isinstance(value, Component):
        return table(registry, value, result_only=result_only)
    if isinstance(value, Settings):
        return _fields(registry, value, fields_of(type(value)), result_only=result_only)
    if isinstance(value, Mapping):
        return {k: _plain(registry, v, result_only=result_only) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(registry, v, result_only=result_only) for v in value]
    return value
