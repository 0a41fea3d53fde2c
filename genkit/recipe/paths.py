"""Paths in recipes: relative to the file of the recipe, then to the working directory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from genkit.errors import Code, Problem


class RecipePath(str):
    """Path to open, with the path that the recipe has.

    Attributes:
        written: path as it is written. It is part of fingerprints, so that a run does not depend on
            the working directory.
        places: absolute paths where it was looked for, in their order.
    """

    __slots__ = ("places", "written")

    written: str
    places: tuple[str, ...]

    def __new__(cls, path: str, written: str = "", places: Iterable[str] = ()) -> RecipePath:
        """Return a path; without further arguments as it is written."""
        made = super().__new__(cls, path)
        made.written = written or path
        made.places = tuple(places)
        return made


def find_path(path: str, folder: Path | None, *, recipe_first: bool) -> str:
    """Return where a path of a recipe leads.

    Args:
        path: path as it is written.
        folder: folder of the recipe's file; None where the recipe is in no file of the user.
        recipe_first: whether the folder of the recipe goes before the working directory. A path
            that is typed on the command line is relative to the working directory first.

    Returns:
        An absolute path where it is found in the folder of the recipe alone, else the path as it is
        written, which is relative to the working directory.
    """
    if folder is None or not path or path.startswith("~") or Path(path).is_absolute():
        return path
    here, beside = (str(place.absolute()) for place in (Path(path), folder / path))
    places = dict.fromkeys((beside, here) if recipe_first else (here, beside))
    found = next(filter(_exists, places), here)
    return RecipePath(path if found == here else found, path, places)


def name_places(problem: Problem, values: Iterable[Any]) -> Problem:
    """Return a problem that something does not exist with the places where paths were looked for.

    Args:
        problem: problem of a component.
        values: values of its settings.
    """
    if problem.code != Code.NOT_FOUND:
        return problem
    missing = (
        f"neither {' nor '.join(value.places)} exists"
        for value in values
        if isinstance(value, RecipePath)
        and len(value.places) > 1
        and not any(map(_exists, value.places))
    )
    return replace(problem, hint="; ".join(filter(None, (problem.hint, *missing))))


def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110, Path.exists raises for a folder that is closed
