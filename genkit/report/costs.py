"""Format sampling costs: columns in tables of scores, and the conditions of the measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from genkit.artifacts import SamplingCost
from genkit.artifacts.scores import COUNTS, Row, settings_of

COLUMNS = {
    "equivalents": "nfe_equivalents",
    "GFLOP/image": "gflop_per_image",
    "s/image": "seconds_per_image",
}
"""Map from the heading of a column to the attribute of a cost."""


def with_costs(rows: Sequence[Row], costs: Sequence[SamplingCost]) -> Sequence[Row]:
    """Return rows of scores with the columns of their cost after the counts of calls.

    Args:
        rows: rows of scores.
        costs: cost of each row. If the numbers of costs and rows differ, the rows are returned
            unchanged.
    """
    if len(costs) != len(rows):
        return rows
    before = {*settings_of(rows), *COUNTS}
    return [
        {**{name: value for name, value in row.items() if name in before}, **cost, **row}
        for row, cost in zip(rows, _columns(costs), strict=True)
    ]


def without_scores(rows: Sequence[Row], costs: Sequence[SamplingCost]) -> Sequence[Row]:
    """Return rows with the settings that a sweep varies and the columns of cost, without scores.

    Args:
        rows: rows of scores.
        costs: cost of each row. If the numbers of costs and rows differ, the result is empty.
    """
    if len(costs) != len(rows):
        return []
    settings = settings_of(rows)
    return [
        {**{name: value for name, value in row.items() if name in settings}, **cost}
        for row, cost in zip(rows, _columns(costs), strict=True)
    ]


def _columns(costs: Sequence[SamplingCost]) -> Iterator[Row]:
    """Yield the columns of each cost; a column that is unknown for all costs is left out."""
    headings = {
        heading: name
        for heading, name in COLUMNS.items()
        if any(getattr(cost, name) is not None for cost in costs)
    }
    for cost in costs:
        yield {heading: getattr(cost, name) for heading, name in headings.items()}


def conditions(costs: Sequence[SamplingCost]) -> Iterator[str]:
    """Yield lines with the conditions of the measurements, such as the device, each line once."""
    lines: dict[str, None] = {}
    for cost in costs:
        if cost.seconds_per_image is not None:
            drawn = [f"{cost.threads:,} thread{'s' if cost.threads > 1 else ''}"]
            if cost.processes > 1:
                drawn.append(f"{cost.processes:,} processes")
            if cost.batch_size is not None:
                drawn.append(f"batches of {cost.batch_size:,}")
            if cost.images_timed < cost.images:
                drawn.append(f"over {cost.images_timed:,} of {cost.images:,} samples")
            lines[f"s/image: {cost.device}, {', '.join(drawn)}"] = None
        lines |= {f"cost: {note}": None for note in cost.notes}
    yield from lines
