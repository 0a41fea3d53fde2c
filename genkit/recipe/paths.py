"""Paths in recipes: relative to the file of the recipe, then to the working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from genkit.errors import Code, Problem


class RecipePath(str):
    """Path to open, with the path in the recipe.

    Attributes:
        written: path in the recipe. It is part of fingerprints, so that a run does not depend on
            the working directory.
        places: absolute paths where the file was searched, in order.
    """

    __slots__ = ("places", "written")

    written: str
    places: tuple[str, ...]

    def __new__(cls, path: str, written: str = "", places: Iterable[str] = ()) -> RecipePath:
        """Return a path; ``written`` is the same path by default."""
        made = super().__new__(cls, path)
        made.written = written or path
        made.places = tuple(places)
        return made


def find_path(path: str, folder: Path | None, *, recipe_first: bool) -> str:
    """Return the path to open for a path in a recipe.

    Args:
        path: path in the recipe.
        folder: folder of the recipe's file; None for a shipped recipe, or one without file.
        recipe_first: whether the folder of the recipe is searched before the working directory.
            False for a path on the command line.

    Returns:
        Absolute path if the file exists in the folder of the recipe, otherwise ``path``, which is
        relative to the working directory.
    """
    if folder is None or not path or path.startswith("~") or Path(path).is_absolute():
        return path
    here, beside = (str(place.absolute()) for place in (Path(path), folder / path))
    places = dict.fromkeys((beside, here) if recipe_first else (here, beside))
    found = next(filter(_exists, places), here)
    return RecipePath(path if found == here else found, path, places)


def name_places(problem: Problem, values: Iterable[Any]) -> Problem:
    """Return the problem of a missing file with the places that were searched.

    Args:
        problem: problem of a component.
        values: values of its settings.
    """
    if problem.code != Code.NOT_FOUND:
        return problem
    missing = (
        f"neither {' nor '.join(value.places)} exists"
        for value in _paths(values)
        if len(value.places) > 1 and not any(map(_exists, value.places))
    )
    return replace(problem, hint="; ".join(filter(None, (problem.hint, *missing))))


def _paths(values: Iterable[Any]) -> Iterator[RecipePath]:
    """Yield the paths of a recipe among some values, and in lists of them."""
    for value in values:
        if isinstance(value, RecipePath):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _paths(value)


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110, Path.exists raises for a folder that is closed
