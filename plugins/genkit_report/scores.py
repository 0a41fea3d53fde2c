"""Blocks of a report about scores: tables, charts of scores against cost, curves of metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from genkit.artifacts.scores import FLOOR_ITEMS, STD, scores_in, settings_of
from genkit.parts.figure import number, with_spread
from genkit.plugin import SamplingCost
from genkit_report.blocks import Block, Table, Text
from genkit_report.charts import FEW, Line, line_chart
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
    if any(len(view.scores) > 1 for view in views):
        yield Text(
            'Stages draw different noise, except with the latents "edm". So two stages can have '
            "different scores for equal settings."
        )
    yield from _floors(views)
    yield from _against_cost(views)


def _score_table(title: str, rows: Sequence[Row], costs: Sequence[SamplingCost]) -> Table:
    varied = settings_of(rows)
    names = list(dict.fromkeys(name for row in rows for name in scores_in(row)))
    head = [*varied, NFE, "guidance NFE", "equivalents", *names]
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


def _floors(views: Sequence[View]) -> Iterator[Block]:
    """Yield a table of the scores of real data, or the reason why a score has none."""
    rows = []
    for view in views:
        for stage, scores in view.scores.items():
            for score, facts in scores.facts.items():
                floor = scores.floor(score)
                text = facts.get(FLOOR_ITEMS, "") if floor is not None else _too_few(facts)
                if text:
                    value = "" if floor is None else number(floor)
                    rows.append((stage_label(view, stage, views), score, value, text))
    if rows:
        head = ("stage", "score", "real data", "items compared")
        yield Table("Scores of real data against the other real data", head, rows)
        yield Text(
            "Real items are compared with the other real items, and samples with all. So the "
            "Fréchet distance of perfect samples is slightly lower than that of real data."
        )


def _too_few(facts: Mapping[str, str]) -> str:
    """Return why there are too few real items for a floor; empty if there are enough."""
    try:
        samples, real = int(facts["samples"]), int(facts["reference"])
    except (KeyError, ValueError):  # a score of the denoiser, or a file of statistics
        return ""
    needed = f"not measured: two parts of {samples:,} items each require {2 * samples:,}"
    return f"{needed}, and the data has {real:,}" if real < 2 * samples else ""


def _against_cost(views: Sequence[View]) -> Iterator[Block]:
    """Yield a chart for each score: its values in sweeps over the number of steps, and the floor.

    The cost is the arithmetic of all networks, or the number of their calls if the arithmetic of a
    row is unknown.
    """
    swept = list(_swept(views))
    counted = all(cost is not None for _, rows in swept for _, cost in rows)
    lines: dict[str, list[Line]] = {}
    floors: dict[str, dict[str, float]] = {}
    labels: dict[str, tuple[str, str]] = {}
    for (view, stage, settings), rows in swept:
        points = sorted(
            (cost if counted and cost else _calls(row), k) for k, (row, cost) in enumerate(rows)
        )
        costs, ordered = [cost for cost, _ in points], [rows[k][0] for _, k in points]
        if len(set(costs)) < 2:
            continue
        name = ", ".join(filter(None, (stage_label(view, stage, views), settings)))
        scores = view.scores[stage]
        for score in scores_in(ordered[0]):
            spread = [row.get(f"{score}{STD}") for row in ordered]
            known = None if None in spread else [float(s or 0.0) for s in spread]
            values = [row[score] for row in ordered]
            lines.setdefault(score, []).append(Line(name, costs, values, known, marked=True))
            labels[score] = scores.words(score), scores.axis_label(score)
            if (floor := scores.floor(score)) is not None:
                items = scores.facts[score].get(FLOOR_ITEMS, "")
                label = f"real data, {items}, {stage_label(view, stage, views)}"
                floors.setdefault(score, {})[label] = floor
    arithmetic = "arithmetic of all networks per sample, in calls of the denoiser"
    calls = "network calls per sample, including calls of guidance networks"
    for score, drawn in lines.items():
        ends = [f(x for line in drawn for x in line.x) for f in (min, max)]
        flat = [Line(k, ends, [y, y], dashed=True) for k, y in floors.get(score, {}).items()]
        words, label = labels[score]
        yield line_chart(
            f"{words} against the cost of a sample",
            [*drawn, *flat],
            arithmetic if counted else calls,
            label,
            log_y=True,
        )


def _swept(
    views: Sequence[View],
) -> Iterator[tuple[tuple[View, str, str], list[tuple[Row, float | None]]]]:
    """Yield the rows of each line of a sweep: those that differ only in the number of steps.

    Each line has its run, its stage and its other settings. Each row has its cost in
    NFE-equivalents if it is known.
    """
    for view in views:
        for stage, scores in view.scores.items():
            costs = view.costs(view.run.stages[stage])
            aligned = len(costs) == len(scores.rows)
            groups: dict[str, list[tuple[Row, float | None]]] = {}
            for index, row in enumerate(scores.rows):
                apart = [f"{k} {number(row[k])}" for k in settings_of([row]) if "steps" not in k]
                cost = costs[index].nfe_equivalents if aligned else None
                groups.setdefault(", ".join(apart), []).append((row, cost))
            for label, rows in groups.items():
                if len(rows) > 1:
                    yield (view, stage, label), rows


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
                line = Line(label, curve.x, curve.y, curve.spread, marked=len(curve.x) <= FEW)
                groups.setdefault(key, []).append(line)
    for (name, x_label, y_label, log_x, log_y), lines in groups.items():
        yield line_chart(name, lines, x_label, y_label, log_x=log_x, log_y=log_y)


def stage_label(view: View, stage: str, views: Sequence[View]) -> str:
    """Return the id of a stage, with the name of its run if the report has several runs."""
    return stage if len(views) == 1 else f"{view.label}, {stage}"
