"""Collect and print the scores and pictures of all stages at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from genkit.artifacts import SamplingCost, SamplingCosts, Scores
from genkit.artifacts.layout import stages_in
from genkit.artifacts.scores import Row
from genkit.report.costs import conditions, with_costs, without_scores
from genkit.report.table import render
from genkit.terminal import say

_READ = ("extractor", "protocol", "samples", "reference", "sets", "warning")
"""Facts that are printed; all others are in ``scores.json``."""


def gather(folder: Path, stages: Mapping[str, Path]) -> dict[str, Any]:
    """Return the scores and pictures of the stages of a run.

    Args:
        folder: folder of the run.
        stages: map from the id of each stage to its folder, in the order of the recipe.

    Returns:
        ``{"stages": {id: {"rows": [...], "facts": {score: {...}}}}, "pictures": [...]}``. Stages
        without scores are left out. Pictures are paths relative to ``folder``.
    """
    scored: dict[str, Any] = {}
    pictures: list[str] = []
    for stage, place in stages.items():
        if (path := place / Scores.filename()).is_file():
            scores = Scores.load(path)
            scored[stage] = {"rows": scores.rows, "facts": scores.facts}
        pictures += [p.relative_to(folder).as_posix() for p in sorted(place.glob("*.png"))]
    return {"stages": scored, "pictures": pictures}


def print_results(console: Console, results: Mapping[str, Any], folder: Path) -> None:
    """Print a table of scores and costs for each stage that has scores, and the pictures.

    Args:
        console: console to print to.
        results: result of :func:`gather`.
        folder: folder of the run.
    """
    folders = stages_in(folder)
    for stage, content in results["stages"].items():
        console.print(f"\nScores of {stage}", style="bold", markup=False, highlight=False)
        path = folders[stage] / SamplingCosts.filename()
        costs = SamplingCosts.load(path).rows if path.is_file() else []
        for number, table in enumerate(_tables(content["rows"], costs, console)):
            if number:
                console.print()
            console.print(table)
        for line in conditions(costs):
            say(console, line, "dim")
        for line in _provenance(content["facts"]):
            say(console, line, "dim")
    if results["pictures"]:
        console.print("\nPictures", style="bold")
        for picture in results["pictures"]:
            say(console, f"  {folder / picture}")
    say(console, f"\nEverything is in {folder}")


def _provenance(facts: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield a line with scores and facts for each group of scores whose printed facts agree."""
    scores: dict[str, list[str]] = {}
    for score, values in facts.items():
        text = ", ".join(f"{name} {values[name]}" for name in _READ if name in values)
        scores.setdefault(text, []).append(score)
    yield from (f"{', '.join(names)}: {text}" for text, names in scores.items() if text)


def _tables(
    rows: Sequence[Row], costs: Sequence[SamplingCost], console: Console
) -> Iterator[Table]:
    """Yield one table of scores and costs, or several tables if the terminal is too narrow."""
    joined = list(render(with_costs(rows, costs), console.width))
    if len(joined) == 1:
        yield from joined
        return
    yield from render(rows, console.width)
    yield from render(without_scores(rows, costs), console.width)
