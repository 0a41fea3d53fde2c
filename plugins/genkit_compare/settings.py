"""Find the settings in which recipes differ, including default values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from genkit.artifacts import Run
from genkit.settings import toml_key, toml_value

Differences = Mapping[str, Sequence[Any]]
"""Dict from a key path, such as ``denoiser.pool_size``, to the values of the runs; the value is
None for a run without the setting."""

_TOP = frozenset({"name", "stage"})
_MAX_LENGTH = 60  # maximum characters of a component's settings in a table; longer are omitted


def differences(runs: Sequence[Run]) -> Differences:
    """Return the settings that differ between runs, in the order of the recipes.

    Different components are compared as one value, and so are lists of different lengths. The data
    of a stage is omitted if it equals that of the recipe. The name of the run is always omitted.
    """
    differing: dict[str, Mapping[int, Any]] = {}
    _compare({index: _flat(run.recipe) for index, run in enumerate(runs)}, (), differing)
    return {
        path: [values.get(index) for index in range(len(runs))]
        for path, values in differing.items()
    }


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as a table with the ids of the stages as keys."""
    top = {key: value for key, value in recipe.items() if key not in _TOP}
    data = top.get("data")
    stages = {
        table["id"]: {k: v for k, v in table.items() if k != "id" and (k, v) != ("data", data)}
        for table in recipe["stage"]
    }
    return {**top, **stages}


def _compare(
    values: Mapping[int, Any], path: tuple[str, ...], differing: dict[str, Mapping[int, Any]]
) -> None:
    """Add the settings at and below a key path that differ to ``differing``.

    Args:
        values: dict from the index of each run to its value at the key path, None if it has none.
        path: parts of the key path.
        differing: settings that differ, to which settings are added.
    """
    present = {run: value for run, value in values.items() if value is not None}
    if all(isinstance(value, Mapping) and "use" not in value for value in present.values()):
        # These tables are not components, so a missing table is the same as an empty table.
        present = {run: values[run] or {} for run in values}
    first = next(iter(present.values()), None)
    differ = any(value != first for value in present.values())
    get, keys = _inner(list(present.values()))
    if len(present) < len(values) or (differ and not keys):
        differing[".".join(path)] = values
    if differ:
        for key in keys:
            below = {run: get(value, key) for run, value in present.items()}
            _compare(below, (*path, toml_key(key)), differing)


def _inner(values: Sequence[Any]) -> tuple[Callable[[Any, Any], Any], Sequence[Any]]:
    """Return a function that gets an inner value by key, and the keys of all inner values.

    There are no keys if the values have different types, components or lengths.
    """
    if all(isinstance(value, Mapping) for value in values):
        if len({value.get("use") for value in values}) == 1:
            return Mapping.get, list(dict.fromkeys(key for value in values for key in value))
    elif all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
        return list.__getitem__, range(len(values[0]))
    return Mapping.get, ()


def text(value: Any) -> str:
    """Return the value of a setting as text.

    A component is shown as its name, followed by its settings in parentheses if they are short.
    """
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        name = str(value.get("use", ""))
        settings = ", ".join(f"{k} {text(v)}" for k, v in value.items() if k != "use")
        if not name:
            return settings
        return f"{name} ({settings})" if 0 < len(settings) <= _MAX_LENGTH else name
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "none"
    return value if isinstance(value, str) else toml_value(value)
