"""The settings in which recipes differ, with every default."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genkit.artifacts import Run
from genkit.settings import toml_key, toml_value

Differences = Mapping[str, Sequence[Any]]
"""The value of each run by key path, such as ``denoiser.pool_size``; None where it has none."""

_TOP = frozenset({"name", "stage"})
_FEW = 60  # characters of the settings of a component that are shown in a table


def differences(runs: Sequence[Run]) -> Differences:
    """Return the settings that are not the same in all runs, in the order of the recipes.

    Where a run has another component, or a list of another length, the whole is one value. The data
    of a stage is left out where it is that of the recipe. The name of a run is no setting.
    """
    found: dict[str, Mapping[int, Any]] = {}
    _compare({index: _flat(run.recipe) for index, run in enumerate(runs)}, (), found)
    return {
        path: [values.get(index) for index in range(len(runs))] for path, values in found.items()
    }


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe with its stages by id."""
    top = {key: value for key, value in recipe.items() if key not in _TOP}
    data = top.get("data")
    stages = {
        table["id"]: {k: v for k, v in table.items() if k != "id" and (k, v) != ("data", data)}
        for table in recipe["stage"]
    }
    return {**top, **stages}


def _compare(
    values: Mapping[int, Any], path: tuple[str, ...], found: dict[str, Mapping[int, Any]]
) -> None:
    """Note where values differ, by the number of their run; a run without one has None."""
    there = {run: value for run, value in values.items() if value is not None}
    if all(isinstance(value, Mapping) and "use" not in value for value in there.values()):
        there = {run: values[run] or {} for run in values}  # a table of settings, no component
    first = next(iter(there.values()), None)
    differ = any(value != first for value in there.values())
    kind, inner = _inner(list(there.values()))
    if len(there) < len(values) or (differ and not inner):
        found[".".join(path)] = values
    if differ:
        for key in inner:
            below = {run: kind(value, key) for run, value in there.items()}
            _compare(below, (*path, toml_key(key)), found)


def _inner(values: Sequence[Any]) -> tuple[Callable[[Any, Any], Any], Sequence[Any]]:
    """Return how values of one kind are looked into, and their keys; no keys where they differ."""
    if all(isinstance(value, Mapping) for value in values):
        if len({value.get("use") for value in values}) == 1:
            return Mapping.get, list(dict.fromkeys(key for value in values for key in value))
    elif all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
        return list.__getitem__, range(len(values[0]))
    return Mapping.get, ()


def text(value: Any) -> str:
    """Return a setting for people: a component by its name, and by its settings if they are few."""
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        name = str(value.get("use", ""))
        settings = ", ".join(f"{k} {text(v)}" for k, v in value.items() if k != "use")
        if not name:
            return settings
        return f"{name} ({settings})" if 0 < len(settings) <= _FEW else name
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none"
    return value if isinstance(value, str) else toml_value(value)
