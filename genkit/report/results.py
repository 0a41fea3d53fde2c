"""The end of a run: scores and pictures of all stages in one place, shown and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from genkit.report.table import render

SCORES = "scores.json"


def gather(folder: Path, stages: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the stages of a run found.

    Args:
        folder: of the run.
        stages: folder of each stage by id, in the order of the recipe.

    Returns:
        ``{"stages": {id: {"rows": [...], "facts": {...}}}, "pictures": [...]}``; only stages that
        score are in ``stages``, and pictures are paths relative to ``folder``.
    """
    scored: dict[str, Any] = {}
    pictures: list[str] = []
    for stage, place in stages.items():
        if (scores := place / SCORES).is_file():
            content = json.loads(scores.read_text(encoding="utf-8"))
            scored[stage] = {"rows": content["rows"], "facts": content.get("facts", {})}
        pictures += [p.relative_to(folder).as_posix() for p in sorted(place.glob("*.png"))]
    return {"stages": scored, "pictures": pictures}


def show(console: Console, results: Mapping[str, Any], folder: Path) -> None:
    """Print the report: a table for each scoring stage, and the pictures.

    Args:
        console: where to print.
        results: as :func:`gather` returns them.
        folder: of the run.
    """
    for stage, content in results["stages"].items():
        console.print(f"\nScores of {stage}", style="bold", markup=False, highlight=False)
        console.print(render(content["rows"]))
        for name, fact in content["facts"].items():
            console.print(f"{name}: {fact}", style="dim", markup=False, highlight=False)
    if results["pictures"]:
        console.print("\nPictures", style="bold")
        for picture in results["pictures"]:
            # Unwrapped, so that a path can be copied whole.
            line = f"  {folder / picture}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"\nEverything is in {folder}", markup=False, highlight=False, soft_wrap=True)
