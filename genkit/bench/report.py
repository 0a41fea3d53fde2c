"""What was measured, as people and programs read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from rich.box import SIMPLE
from rich.table import Table

from genkit.bench.couplers import Limits, Row
from genkit.bench.data import Pools
from genkit.plugin.manager import Plugins
from genkit.run.environment import environment

T = TypeVar("T")

CAPTION = """\
cost matrix: genkit.tensors.pairwise_cost alone, in the cost that the coupler minimises
solve: the whole call of pair, its own cost matrix and the checks of its input included; median
against scipy: time of plain scipy (cost matrix and linear_sum_assignment) over solve
gap: mean cost of the pairs over that of the optimal pairs, less 1; below 0 where a coupler chooses
     among more than the pool; with <= it is what the coupler proves where scipy is not tried
gain: share of the optimal pairs' gain over random pairs
memory: the most that was held at a time, above what was held before
images/s: pairs that it can feed when it has this machine to itself"""
"""What the columns mean."""

COLUMNS = (
    "coupler",
    "pool",
    "cost matrix",
    "solve",
    "against scipy",
    "gap",
    "gain",
    "memory",
    "images/s",
)


def coupler_table(rows: Sequence[Row]) -> Table:
    """Return what was measured as a table, sizes apart; rows that were not are left out."""
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    table.add_column(COLUMNS[0])
    for column in COLUMNS[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    measured = [row for row in rows if row.seconds is not None]
    for row, following in zip(measured, [*measured[1:], None], strict=True):
        last = following is not None and following.pool != row.pool
        table.add_row(*cells(row), end_section=last)
    return table


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of a measured row, in the order of :data:`COLUMNS`."""

    def text(value: T | None, write: Callable[[T], str]) -> str:
        return "" if value is None else write(value)

    return (
        row.coupler,
        f"{row.pool:,}",
        text(row.matrix_seconds, time_text),
        text(row.seconds, time_text),
        text(row.speed, "{:.3g}x".format),
        text(row.bound, "<= {:.2g}".format) if row.gap is None else gap_text(row.gap),
        text(row.gain, "{:.1%}".format),
        text(row.peak_bytes, memory_text),
        text(row.images_per_second, "{:,.0f}".format),
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """Return a line for each coupler and reason why something is missing, with its sizes."""
    sizes: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row.note:
            sizes.setdefault((row.coupler, row.note), []).append(row.pool)
    return [
        f"{coupler}, pool {', '.join(f'{size:,}' for size in pools)}: {note}"
        for (coupler, note), pools in sizes.items()
    ]


def report(
    rows: Sequence[Row], pools: Pools, limits: Limits, plugins: Plugins, data: str
) -> dict[str, Any]:
    """Return what was measured, on what and where, for programs.

    Args:
        rows: what was measured.
        pools: on what.
        limits: within what.
        plugins: that were loaded.
        data: name of the data set.
    """
    return {
        "data": {
            "name": data,
            "items": len(pools.data),
            "shape": list(pools.data.data.shape[1:]),
            "classes": 0 if pools.data.labels is None else int(pools.data.labels.max()) + 1,
        },
        "seed": pools.seed,
        "limits": asdict(limits),
        "environment": environment(pools.device, plugins),
        "rows": [asdict(row) for row in rows],
    }


def gap_text(value: float) -> str:
    """Return a relative gap; what is below the rounding of float64 sums is 0."""
    return "0" if abs(value) < 1e-12 else f"{value:.2g}"


def time_text(seconds: float) -> str:
    """Return a time in the unit that is read best."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def memory_text(count: int) -> str:
    """Return bytes in MiB."""
    return f"{count / 2**20:,.0f} MiB"
