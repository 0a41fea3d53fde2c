"""Recipes that are written in Python, as the keys and values of their TOML form."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import tomli_w

from genkit.errors import Code, Key, Mistake, Problem, RecipeError
from genkit.files import write_text
from genkit.interfaces import Component
from genkit.plugin.manager import load_plugins
from genkit.recipe.encode import table
from genkit.recipe.locate import id_of, written_key
from genkit.recipe.source import MAX_DEPTH, MAX_ITEMS, Source, read_source
from genkit.terminal import writable


class Recipe:
    """A recipe in Python. Its results are the same bits as those of its TOML form.

    Args:
        keys: keys of a recipe: ``name``, ``seed``, ``data``, ``device``, ``trackers``, and
            ``stage``, a list with the table of each stage. Values are those of TOML: booleans,
            numbers, strings, lists and dicts. A number may also be that of NumPy or PyTorch, a
            string a path, and a table a component, whose settings are written with all defaults.

    Raises:
        RecipeError: a value has no TOML form; the error contains its key. All other mistakes are
            reported when the recipe runs.

    Example:
        >>> network = {"use": "mlp", "width": 8}
        >>> train = {"id": "denoiser", "use": "train", "images": 256, "network": network}
        >>> recipe = Recipe(name="points", data={"use": "moons"}, stage=[train])
        >>> recipe.replace(seed=1)
        Recipe(name='points', stages=['denoiser'])
    """

    def __init__(self, **keys: Any) -> None:
        plain = {name: _plain(value, (name,), keys) for name, value in keys.items()}
        self.source = Source("", tomli_w.dumps(plain), plain)

    @classmethod
    def of(cls, keys: Mapping[str, Any]) -> Self:
        """Return the recipe of a dict with the keys of a recipe.

        Raises:
            RecipeError: a key is not a string, or a value has no TOML form.
        """
        return cls(**{_name(name, (), keys): value for name, value in keys.items()})

    @classmethod
    def read(cls, recipe: str | Path) -> Self:
        """Return the recipe of a file, or the shipped recipe of a name such as ``edm_aot``.

        Paths in the recipe remain relative to its file.

        Raises:
            UsageError: there is no such file.
            RecipeError: the file is not TOML.
        """
        read = cls()
        read.source = read_source(recipe)
        return read

    @property
    def table(self) -> dict[str, Any]:
        """Copy of the keys and values."""
        return copy.deepcopy(dict(self.source.table))

    def replace(self, **keys: Any) -> Self:
        """Return a copy of the recipe with other values of keys, such as ``replace(seed=1)``.

        Paths remain relative to the file of the recipe, if it was read.

        Raises:
            RecipeError: a value has no TOML form.
        """
        changed = type(self)(**{**self.table, **keys})
        changed.source = dataclasses.replace(changed.source, folder=self.source.folder)
        return changed

    def toml(self) -> str:
        """Return the recipe as TOML; for a recipe that was read, the text of its file."""
        return self.source.text

    def write(self, path: str | Path) -> None:
        """Write the recipe to a TOML file. Relative paths are not changed: write it beside them.

        Raises:
            UsageError: the file cannot be written.
        """
        with writable("path", Path(path)):
            write_text(Path(path), self.toml())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and self.source.table == other.source.table

    __hash__ = None  # type: ignore[assignment]  # the table is a dict

    def __repr__(self) -> str:
        stages = self.source.table.get("stage")
        ids = [id_of(stage) for stage in stages] if isinstance(stages, list) else []
        return f"Recipe(name={self.source.table.get('name')!r}, stages={ids})"


def _plain(value: Any, key: Key, keys: Mapping[str, Any]) -> Any:
    """Return a value as booleans, numbers, strings, lists and dicts.

    Args:
        value: value of a setting.
        key: path of the setting in the recipe.
        keys: keys of the recipe, for the names of stages in messages.

    Raises:
        RecipeError: the value has no TOML form.
    """
    if isinstance(value, Component):
        return table(load_plugins().registry, value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (bool, int, float, str)):
        return value
    if len(key) > MAX_DEPTH:
        raise _mistake(key, keys, f"values are nested in more than {MAX_DEPTH} levels", "")
    if isinstance(value, Mapping):
        return {_name(name, key, keys): _plain(v, (*key, name), keys) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        if len(value) > MAX_ITEMS:
            reason = f"must have at most {MAX_ITEMS} items, got {len(value)}"
            raise _mistake(key, keys, reason, "pass data to run_recipe(..., data=...)")
        return [_plain(item, (*key, index), keys) for index, item in enumerate(value)]
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return _plain(value.item(), key, keys)  # a number of NumPy or PyTorch
    hint = "write a number, a string, a list, a dict or a component"
    if value is None:
        hint = "remove the setting, since TOML has no null value"
    elif hasattr(value, "shape"):
        hint = "pass data to run_recipe(..., data=...)"
    got = "None" if value is None else type(value).__name__
    raise _mistake(key, keys, f"must have a TOML form, got {got}", hint)


def _name(name: object, key: Key, keys: Mapping[str, Any]) -> str:
    if not isinstance(name, str):
        reason = f"must have strings as keys, got {name!r:.60}"
        raise _mistake(key, keys, reason, "write a string")
    return name


def _mistake(key: Key, keys: Mapping[str, Any], reason: str, hint: str) -> RecipeError:
    problem = Problem(key, reason, hint, Code.WRONG_TYPE)
    return RecipeError([Mistake(problem, written_key(key, keys))])
