"""Format a comparison for the terminal, and as Markdown, CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from genkit.artifacts import Run
from genkit.artifacts.scores import MIN, STD
from genkit.files import inf_as_text
from genkit.parts.figure import number, with_spread
from genkit.parts.text_table import fitting, grid, width_of
from genkit.terminal import say
from genkit_compare.comparison import Exclusion, Row, Table
from genkit_compare.settings import Differences, text

ABSENT = "-"

_COST: Mapping[str, tuple[str, Callable[[Row], Any]]] = {
    "nfe": ("NFE", lambda row: row.nfe),
    "guidance_nfe": ("guidance NFE", lambda row: row.guidance_nfe),
    "nfe_equivalents": ("equivalents", lambda row: row.cost and row.cost.nfe_equivalents),
    "gflop_per_image": ("GFLOP/image", lambda row: row.cost and row.cost.gflop_per_image),
    "seconds_per_image": ("s/image", lambda row: row.cost and row.cost.seconds_per_image),
    "device": ("device", lambda row: row.cost and row.cost.device),
}
"""Columns of the cost: dict from name to heading and function that returns the value of a row."""


@dataclass(frozen=True)
class Comparison:
    """Runs, the settings in which they differ, and their scores.

    Attributes:
        runs: dict from label to run.
        settings: settings in which the recipes differ, with the value of each run.
        tables: tables of comparable scores.
        exclusions: scores that are not comparable, with reasons.
    """

    runs: dict[str, Run]
    settings: Differences
    tables: Sequence[Table]
    exclusions: Sequence[Exclusion]


def as_text(comparison: Comparison, form: str) -> str:
    """Return a comparison as text in the format ``markdown``, ``csv`` or ``json``."""
    return {"markdown": _as_markdown, "csv": _as_csv, "json": _as_json}[form](comparison)


def show(to: Console, comparison: Comparison) -> None:
    """Print a comparison on a console."""
    for table in comparison.tables:
        say(to, f"Stage {table.title}\n")
        _print_scores(to, table)
        say(to, "")
    say(to, "Settings that differ\n" if comparison.settings else "All settings are the same.")
    if comparison.settings:
        to.print(grid(_setting_cells(comparison), "left"))


def _as_markdown(comparison: Comparison) -> str:
    """Return a comparison as a section of a Markdown page."""
    parts = []
    for table in comparison.tables:
        parts += [f"Stage {table.title}", _markdown_table(_score_cells(table, minima=True), "---:")]
    parts += [f"Not compared: {exclusion}" for exclusion in comparison.exclusions]
    if comparison.settings:
        parts += ["Settings that differ", _markdown_table(_setting_cells(comparison), "---")]
    else:
        parts += ["All settings are the same."]
    return "\n\n".join(parts) + "\n"


def _as_csv(comparison: Comparison) -> str:
    """Return a comparison as CSV: one line per row, with the settings in which the runs differ."""
    parts: list[list[dict[str, Any]]] = []
    for row in (row for table in comparison.tables for row in table.rows):
        scores: dict[str, float] = {}
        for name in row.scores:
            spread = {"": row.scores, STD: row.spread, MIN: row.minimum}
            scores |= {name + end: of[name] for end, of in spread.items() if name in of}
        index = [run is row.member.run for run in comparison.runs.values()].index(True)
        settings = comparison.settings.items()
        parts.append(
            [
                {"stage": row.member.stage.id, "run": row.member.label},
                dict(row.settings),
                scores,
                {name: value(row) for name, (_, value) in _COST.items()},
                {f"recipe.{path}": _plain(values[index]) for path, values in settings},
            ]
        )
    columns = dict.fromkeys(
        name for part in zip(*parts, strict=True) for record in part for name in record
    )
    content = io.StringIO()
    writer = csv.DictWriter(content, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: v for record in line for k, v in record.items()} for line in parts)
    return content.getvalue()


def _as_json(comparison: Comparison) -> str:
    """Return a comparison as a JSON object."""
    content = inf_as_text(
        {
            "runs": [
                {"run": label, "folder": str(run.folder), "recipe": run.name, "state": run.state}
                for label, run in comparison.runs.items()
            ],
            "settings": [
                {"setting": path, "values": dict(zip(comparison.runs, values, strict=True))}
                for path, values in comparison.settings.items()
            ],
            "tables": [
                {
                    "stages": table.title,
                    "scores": list(table.scores),
                    "rows": [_record(row) for row in table.rows],
                }
                for table in comparison.tables
            ],
            "left_out": [vars(exclusion) for exclusion in comparison.exclusions],
        }
    )
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _record(row: Row) -> dict[str, Any]:
    return {
        "run": row.member.label,
        "stage": row.member.stage.id,
        "settings": row.settings,
        "scores": {
            name: {
                "mean": value,
                "standard_deviation": row.spread.get(name),
                "minimum": row.minimum.get(name),
            }
            for name, value in row.scores.items()
        },
        **{name: value(row) for name, (_, value) in _COST.items()},
    }


def _plain(value: Any) -> Any:
    plain = value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    return value if plain else text(value)


def _score_cells(table: Table, minima: bool = False) -> list[list[str]]:
    """Return the cells of a table: a heading, then one line per row, without empty columns.

    Args:
        table: table of scores.
        minima: whether to add columns with the minima over the sets.
    """
    names = table.scores if minima else ()
    with_minimum = {name for name in names if any(name in row.minimum for row in table.rows)}
    shown = {
        "guidance_nfe": any(row.guidance_nfe for row in table.rows),
        "gflop_per_image": table.calls_differ,
        "device": table.devices_differ,
    }
    costs = [cost for name, cost in _COST.items() if shown.get(name, True)]
    head = ["run", *table.settings]
    for name in table.scores:
        head += [name, f"{name} min"] if name in with_minimum else [name]
    lines = [[*head, *(title for title, _ in costs)]]
    for row in table.rows:
        line = [row.member.label]
        line += [_number(row.settings.get(key)) for key in table.settings]
        for name in table.scores:
            line.append(_score(row, name))
            line += [_number(row.minimum.get(name))] if name in with_minimum else []
        lines.append([*line, *(_number(value(row)) for _, value in costs)])
    return lines


def _setting_cells(comparison: Comparison) -> list[list[str]]:
    lines = [[path, *map(text, values)] for path, values in comparison.settings.items()]
    return [["setting", *comparison.runs], *lines]


def _score(row: Row, name: str) -> str:
    if (value := row.scores.get(name)) is None or (deviation := row.spread.get(name)) is None:
        return _number(value)
    return with_spread(value, deviation)


def _number(value: Any) -> str:
    return ABSENT if value is None else number(value)


def _print_scores(to: Console, table: Table) -> None:
    """Print the scores, split into several tables if the terminal is too narrow for one table."""
    cells = _score_cells(table)
    several = len({row.member.label for row in table.rows}) < len(table.rows)
    for index, part in enumerate(fitting(cells, 1 + len(table.settings), to.width)):
        if index:
            say(to, "")
        # A wide console prevents truncated numbers if a table is wider than the terminal.
        wide = Console(
            file=to.file, width=max(to.width, width_of(part)), force_terminal=to.is_terminal
        )
        wide.print(grid(part, "right", sections=several))


def _markdown_table(cells: Sequence[Sequence[str]], align: str) -> str:
    rule = ["---", *[align] * (len(cells[0]) - 1)]
    lines = [[cell.replace("|", "\\|") for cell in line] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
