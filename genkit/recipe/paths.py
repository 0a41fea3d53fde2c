"""Resolve paths in recipes relative to the file of the recipe, then to the working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from genkit.errors import Code, Problem


class RecipePath(str):
    """Resolved path of a file, with the path that the recipe contains.

    Attributes:
        written: path that the recipe contains. It is part of fingerprints in place of the resolved
            path, so that a run does not depend on the working directory.
        places: absolute paths at which the file was searched, in order.
    """

    __slots__ = ("places", "written")

    written: str
    places: tuple[str, ...]

    def __new__(cls, path: str, written: str = "", places: Iterable[str] = ()) -> RecipePath:
        """Return a path; ``written`` is the same path by default."""
        resolved = super().__new__(cls, path)
        resolved.written = written or path
        resolved.places = tuple(places)
        return resolved


def find_path(path: str, folder: Path | None, *, recipe_first: bool) -> str:
    """Return the resolved path for a path in a recipe.

    Args:
        path: path in the recipe.
        folder: folder of the recipe's file; None for a shipped recipe, or a recipe without a file.
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
    place = next(filter(_exists, places), here)
    return RecipePath(path if place == here else place, path, places)


def name_places(problem: Problem, values: Iterable[Any]) -> Problem:
    """Return a problem; if it is a missing file, add the places that were searched to its hint.

    Args:
        problem: problem of a component.
        values: values of the component's settings.
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
    """Yield the values that are paths of a recipe, also those in lists."""
    for value in values:
        if isinstance(value, RecipePath):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _paths(value)


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110, Path.exists raises for a folder without permission
