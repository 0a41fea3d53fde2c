"""Blocks of a report about scores: tables, charts of scores against cost, curves of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genkit.artifacts.scores import STD, scores_in, settings_of
from genkit.parts.figure import number, with_spread
from genkit.plugin import SamplingCost
from genkit_report.blocks import Block, Table
from genkit_report.charts import Line, line_chart
from genkit_report.view import Row, View

NFE = "NFE"


def score_blocks(views: Sequence[View]) -> Iterator[Block]:
    """Yield a table of scores for each scoring stage, then the charts of scores against cost."""
    for view in views:
        for stage_id, scores in view.scores.items():
            stage = view.run.stages[stage_id]
            costs = view.costs(stage)
            yield _score_table(
                f"Scores of {stage_label(view, stage_id, views)}", scores.rows, costs
            )
    yield from _against_cost(views)


def _score_table(title: str, rows: Sequence[Row], costs: Sequence[SamplingCost]) -> Table:
    varied = settings_of(rows)
    names = list(dict.fromkeys(name for row in rows for name in scores_in(row)))
    head = [*varied, NFE, "guidance NFE", "NFE-equivalents", *names]
    cells = []
    for index, row in enumerate(rows):
        cost = costs[index] if len(costs) == len(rows) else None
        equivalents = number(cost.nfe_equivalents) if cost and cost.nfe_equivalents else ""
        calls = [number(row[key]) if key in row else "" for key in ("nfe", "guidance_nfe")]
        values = [score_text(row, name) if name in row else "" for name in names]
        cells.append([*(number(row.get(key, "")) for key in varied), *calls, equivalents, *values])
    return Table(title, head, cells)


def score_text(row: Row, name: str) -> str:
    """Return a score of a row as text, with its standard deviation if the row has one."""
    deviation = row.get(f"{name}{STD}")
    return number(row[name]) if deviation is None else with_spread(row[name], deviation)


def _against_cost(views: Sequence[View]) -> Iterator[Block]:
    """Yield a chart for each score: its values in sweeps over the number of steps."""
    lines: dict[str, list[Line]] = {}
    for view in views:
        for stage, scores in view.scores.items():
            groups: dict[str, list[Row]] = {}
            for row in scores.rows:
                apart = [f"{k} {number(row[k])}" for k in settings_of([row]) if "steps" not in k]
                groups.setdefault(", ".join(apart), []).append(row)
            for label, rows in groups.items():
                rows = sorted(rows, key=_calls)
                if len(rows) < 2 or len({_calls(row) for row in rows}) < 2:
                    continue
                name = ", ".join(filter(None, (stage_label(view, stage, views), label)))
                for score in scores_in(rows[0]):
                    spread = [row.get(f"{score}{STD}") for row in rows]
                    known = None if None in spread else [float(s or 0.0) for s in spread]
                    calls, values = [_calls(row) for row in rows], [row[score] for row in rows]
                    lines.setdefault(score, []).append(Line(name, calls, values, known, True))
    for score, drawn in lines.items():
        yield line_chart(
            f"{score} against the cost of a sample",
            drawn,
            "network calls per sample, including calls of guidance networks",
            score,
            log_y=True,
        )


def _calls(row: Row) -> float:
    return float(row.get("nfe", 0) + row.get("guidance_nfe", 0))


def curve_blocks(views: Sequence[View]) -> Iterator[Block]:
    """Yield a chart for each curve of a metric, such as curvature by noise level."""
    groups: dict[tuple[str, str, str, bool, bool], list[Line]] = {}
    for view in views:
        for stage, scores in view.scores.items():
            for name, curve in scores.curves.items():
                key = (name, curve.x_label, curve.y_label, curve.log_x, curve.log_y)
                label = stage_label(view, stage, views)
                groups.setdefault(key, []).append(Line(label, curve.x, curve.y, curve.spread))
    for (name, x_label, y_label, log_x, log_y), lines in groups.items():
        yield line_chart(name, lines, x_label, y_label, log_x=log_x, log_y=log_y)


def stage_label(view: View, stage: str, views: Sequence[View]) -> str:
    """Return the id of a stage, with the name of its run if the report has several runs."""
    return stage if len(views) == 1 else f"{view.label}, {stage}"
