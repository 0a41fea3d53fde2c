"""Mutate recipes at random, for `reliability_recipes.py` and the tests."""

from __future__ import annotations

import copy
import datetime
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tomli_w

from genkit.errors import Key
from genkit.plugin.registry import Registry
from genkit.recipe.source import Source
from genkit.testing.extremes import EXTREMES

VALUES = (*EXTREMES, datetime.date(1979, 5, 27), {"use": ""}, {"use": {"use": "edm"}})
"""Values that replace a value of a recipe."""

Table = dict[str, Any]


class Mutator:
    """Mutates recipes. The same seed gives the same mutations.

    Args:
        sources: recipes to mutate.
        registry: registry with the names of components.
        seed: seed of all choices.
    """

    def __init__(self, sources: Sequence[Source], registry: Registry, seed: int) -> None:
        self._sources = sources
        self._names = sorted({entry.name for entry in registry.entries()})
        self._draws = random.Random(seed)  # noqa: S311, mutations are no secret

    def mutate(self) -> tuple[str, bytes]:
        """Return a description of one to three mutations, and the mutated recipe."""
        draws = self._draws
        source = draws.choice(self._sources)
        name = source.label.rpartition("recipes/")[2]
        if draws.random() < 0.25:
            text = source.text.encode()
            for change in (kinds := draws.choices(self._of_text(), k=_how_many(draws))):
                text = change(text)
        else:
            table = copy.deepcopy(dict(source.table))
            for change in (kinds := draws.choices(self._of_tables(), k=_how_many(draws))):
                change(table)
            text = tomli_w.dumps(table).encode("utf-8", "surrogatepass")
        return f"{name}: {', '.join(kind.__name__.strip('_') for kind in kinds)}", text

    def _of_tables(self) -> Sequence[Callable[[Table], None]]:
        return (
            self._set_extreme,
            self._set_extreme,
            self._set_extreme,
            self._delete,
            self._rename,
            self._swap,
            self._duplicate,
            self._choose_component,
        )

    def _of_text(self) -> Sequence[Callable[[bytes], bytes]]:
        return self._flip, self._cut, self._repeat_line, self._delete_line

    def _place(self, table: Table, keep: Callable[[Key], bool] = bool) -> tuple[Any, Any] | None:
        """Return a table or list, and a key in it; None if the recipe has no such key."""
        keys = [key for key in _keys(table) if keep(key)]
        if not keys:
            return None
        *above, last = self._draws.choice(keys)
        inner: Any = table
        for part in above:
            inner = inner[part]
        return inner, last

    def _set_extreme(self, table: Table) -> None:
        if place := self._place(table):
            inner, key = place
            # Most values of another type are refused by type alone, and the checks are not reached.
            alike = [value for value in VALUES if type(value) is type(inner[key])]
            values = alike if alike and self._draws.random() < 0.7 else VALUES
            inner[key] = copy.deepcopy(self._draws.choice(values))

    def _delete(self, table: Table) -> None:
        if place := self._place(table):
            del place[0][place[1]]

    def _rename(self, table: Table) -> None:
        if place := self._place(table, lambda key: isinstance(key[-1], str)):
            inner, name = place
            letters = list(name)
            self._draws.shuffle(letters)
            new = self._draws.choice(["".join(letters), name + "s", name[:-1], "", "x" * 1000])
            inner[new] = inner.pop(name)

    def _swap(self, table: Table) -> None:
        one, other = self._place(table), self._place(table)
        if one and other:
            # Copies, since a table must not contain itself.
            first, second = (copy.deepcopy(inner[key]) for inner, key in (one, other))
            one[0][one[1]], other[0][other[1]] = second, first

    def _duplicate(self, table: Table) -> None:
        if place := self._place(table):
            inner, name = place
            value = copy.deepcopy(inner[name])
            if isinstance(inner, list):
                inner.insert(name, value)
            else:
                inner[name] = [value, copy.deepcopy(value)]

    def _choose_component(self, table: Table) -> None:
        if place := self._place(table, lambda key: key[-1] == "use"):
            place[0]["use"] = self._draws.choice(self._names)

    def _flip(self, text: bytes) -> bytes:
        changed = bytearray(text)
        for _ in range(self._draws.randint(1, 8) if text else 0):
            changed[self._draws.randrange(len(changed))] ^= 1 << self._draws.randrange(8)
        return bytes(changed)

    def _cut(self, text: bytes) -> bytes:
        return text[: self._draws.randrange(len(text) + 1)]

    def _repeat_line(self, text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        if lines:
            line = self._draws.choice(lines)
            lines.insert(self._draws.randrange(len(lines)), line)
        return b"".join(lines)

    def _delete_line(self, text: bytes) -> bytes:
        lines = text.splitlines(keepends=True)
        if lines:
            del lines[self._draws.randrange(len(lines))]
        return b"".join(lines)


def _how_many(draws: random.Random) -> int:
    """Return the number of mutations of a recipe: most often one."""
    return draws.choice([1, 1, 1, 2, 3])


def _keys(value: Any, above: Key = ()) -> Iterator[Key]:
    """Yield the keys of all values in a table."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        yield (*above, name)
        if isinstance(inner, (dict, list)) and len(inner) < 100:
            yield from _keys(inner, (*above, name))
