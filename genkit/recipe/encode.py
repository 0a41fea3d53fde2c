"""Encode components as recipe tables, and list their settings, with all defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genkit.errors import Key
from genkit.fields import Field, Settings, fields_of
from genkit.interfaces import Component
from genkit.plugin.registry import Registry
from genkit.recipe.head import Head
from genkit.recipe.paths import RecipePath
from genkit.recipe.recipe import Recipe
from genkit.settings import toml_key


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


@dataclass(frozen=True)
class Value:
    """A setting of a recipe.

    Attributes:
        key: key as for ``--set``, such as ``denoiser.network.width``.
        value: value as in a recipe; the name of a component; None if it is not set.
        default: default in the same form; None if the setting is not set by default.
        required: whether the setting has no default.
    """

    key: str
    value: Any
    default: Any = None
    required: bool = False

    @property
    def differs(self) -> bool:
        """Whether the value is not the default."""
        return self.required or self.value != self.default


def values(recipe: Recipe, registry: Registry) -> dict[str, list[Value]]:
    """Return all settings of a recipe, with their values and defaults.

    Returns:
        Map from the id of each stage to the settings of the stage and of the components in it. The
        settings at the top of the recipe have the id ``""``. The data of a stage is one setting if
        it is that of the recipe.
    """
    inherited = {"data": _plain(registry, recipe.data, result_only=False)}
    top = _values(registry, recipe, fields_of(Head), (), {}, {})
    return {"": list(top)} | {
        stage_id: list(_values(registry, stage, fields_of(type(stage)), (stage_id,), {}, inherited))
        for stage_id, stage in recipe.stages.items()
    }


def _values(
    registry: Registry,
    holder: Any,
    fields: Iterable[Field],
    above: Key,
    defaults: Mapping[str, Any],
    inherited: Mapping[str, Any],
) -> Iterator[Value]:
    """Yield the settings of a component.

    Args:
        registry: registry with the names of components.
        holder: component, group of settings or recipe.
        fields: its fields.
        above: its key.
        defaults: values that replace the defaults of the fields, as in a recipe.
        inherited: map from a key at the top of the recipe to its value.
    """
    for field in fields:
        value, key = getattr(holder, field.name), (*above, field.name)
        setting, required = field.setting, False
        if field.name in defaults:
            default = defaults[field.name]
        elif setting.inherit in inherited:
            default = inherited[setting.inherit]
            if _plain(registry, value, result_only=False) == default:
                name = registry.name_of(value)
                yield Value(_joined(key), name, name)
                continue
        elif setting.use is not None:
            default = setting.use
        else:
            required = field.default is dataclasses.MISSING
            default = None if required else field.default
        default = _plain(registry, default, result_only=False)
        for found in _below(registry, value, key, default, inherited):
            own = required and found.key == _joined(key)
            yield dataclasses.replace(found, required=True) if own else found


def _below(
    registry: Registry, value: Any, key: Key, default: Any, inherited: Mapping[str, Any]
) -> Iterator[Value]:
    """Yield the setting at a key, or those in the components at and below the key."""
    table = default if isinstance(default, Mapping) else {}
    if isinstance(value, Settings):
        if value.is_component:
            name = registry.name_of(value)
            yield Value(_joined(key), name, table.get("use"))
            table = table if table.get("use") == name else {}
        yield from _values(registry, value, fields_of(type(value)), key, table, inherited)
    elif isinstance(value, tuple) and any(isinstance(item, Settings) for item in value):
        items = default if isinstance(default, list) else []
        for index, item in enumerate(value):
            own = items[index] if index < len(items) else None
            yield from _below(registry, item, (*key, index), own, inherited)
    else:
        yield Value(_joined(key), _plain(registry, value, result_only=False), default)


def _joined(key: Key) -> str:
    return ".".join(map(toml_key, key))


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
