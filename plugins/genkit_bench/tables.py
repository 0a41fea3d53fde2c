"""What was measured, as people read it, and as programs do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, TypeVar

from rich.box import SIMPLE
from rich.table import Table

from genkit.machine import environment
from genkit.plugin.manager import Plugins
from genkit_bench import couplers, sampling, training
from genkit_bench.contender import PHASES
from genkit_bench.pools import Pools
from genkit_bench.variants import PLAIN


class Row(Protocol):
    """One row of any of the three tables."""

    @property
    def images_per_second(self) -> float | None:
        """Speed; None where it was not measured."""
        ...


T = TypeVar("T")
R = TypeVar("R", bound=Row)
Columns = Mapping[str, Callable[[R], str]]
"""The text of a row by the head of its column."""


def gap_text(value: float) -> str:
    """Return a relative gap; what is below the rounding of float64 sums is 0."""
    return "0" if abs(value) < 1e-12 else f"{value:.2g}"


def time_text(seconds: float) -> str:
    """Return a time in the unit that is read best."""
    return f"{1e3 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def memory_text(count: int) -> str:
    """Return bytes in MiB."""
    return f"{count / 2**20:,.0f} MiB"


def _known(value: T | None, write: Callable[[T], str]) -> str:
    return "" if value is None else write(value)


COUPLERS: Columns[couplers.Row] = {
    "coupler": lambda row: row.coupler,
    "pool": lambda row: f"{row.pool:,}",
    "cost matrix": lambda row: _known(row.matrix_seconds, time_text),
    "solve": lambda row: _known(row.seconds, time_text),
    "against scipy": lambda row: _known(row.speed, "{:.3g}x".format),
    "gap": lambda row: (
        _known(row.bound, "<= {:.2g}".format) if row.gap is None else gap_text(row.gap)
    ),
    "gain": lambda row: _known(row.gain, "{:.1%}".format),
    "memory": lambda row: _known(row.peak_bytes, memory_text),
    "images/s": lambda row: _known(row.images_per_second, "{:,.0f}".format),
}

COUPLERS_CAPTION = """\
cost matrix: genkit.tensors.pairwise_cost alone, in the cost that the coupler minimises
solve: the whole call of pair, its own cost matrix and the checks of its input included; median
against scipy: time of plain scipy (cost matrix and linear_sum_assignment) over solve
gap: mean cost of the pairs over that of the optimal pairs, less 1; below 0 where a coupler chooses
     among more than the pool; with <= it is what the coupler proves where scipy is not tried
gain: share of the optimal pairs' gain over random pairs
memory: the most that was held at a time, above what was held before
images/s: pairs that it can feed when it has this machine to itself"""

TRAINING: Columns[training.Row] = {
    "variant": lambda row: row.variant,
    "images/s": lambda row: _known(row.images_per_second, "{:,.4g}".format),
    f"against {PLAIN}": lambda row: _known(row.against_plain, "{:.2f}x".format),
    "forward": lambda row: time_text(row.phases["forward"]),
    "backward": lambda row: time_text(row.phases["backward"]),
    "optimizer": lambda row: time_text(row.phases["optimizer"]),
    "EMA": lambda row: time_text(row.phases["EMA"]),
    "waiting": lambda row: _known(row.seconds_waited, time_text),
    "memory": lambda row: _known(row.peak_bytes, memory_text),
    "of peak": lambda row: _known(row.utilization, "{:.0%}".format),
}

TRAINING_CAPTION = f"""\
images/s: median of the rounds, with all that training waits for
against {PLAIN}: median of the ratios within a round; {PLAIN} is eager float32, NCHW, attention by
     explicit matrices, the optimizer tensor by tensor, the host waiting for every loss
{", ".join(PHASES)}: of a step, each waited for, so that together they take longer;
     the norm of the gradient is part of the backward
waiting: that a step stood still for its pairs
memory: the most that weights, averages, optimizer and a step need
of peak: share of the device's greatest speed in this precision, as its maker states it"""

SAMPLING: Columns[sampling.Row] = {
    "steps": lambda row: str(row.steps),
    "batch": lambda row: f"{row.batch_size:,}",
    "NFE": lambda row: str(row.nfe),
    "images/s": lambda row: _known(row.images_per_second, "{:,.4g}".format),
    "network": lambda row: _known(row.seconds_network, time_text),
    "solver": lambda row: _known(row.seconds_solver, time_text),
    "memory": lambda row: _known(row.peak_bytes, memory_text),
    "of peak": lambda row: _known(row.utilization, "{:.0%}".format),
}

SAMPLING_CAPTION = """\
images/s: median of the rounds
network, solver: of a batch; the solver has all that is not the network
memory: the most that is held beside the weights
of peak: share of the device's greatest speed in this precision, as its maker states it"""


def table(rows: Sequence[R], columns: Columns[R], section: Callable[[R], object] = type) -> Table:
    """Return a table of the rows that were measured.

    Args:
        rows: all rows.
        columns: the columns; the first is aligned left.
        section: value of a row at whose change a section of the table ends; none by default.
    """
    shown = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        shown.add_column(column, justify="right" if index else "left", no_wrap=index > 0)
    measured = [row for row in rows if row.images_per_second is not None]
    for row, following in zip(measured, [*measured[1:], None], strict=True):
        last = following is not None and section(following) != section(row)
        shown.add_row(*(write(row) for write in columns.values()), end_section=last)
    return shown


def notes(rows: Sequence[couplers.Row]) -> list[str]:
    """Return a line for each coupler and reason why something is missing, with its sizes."""
    sizes: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        if row.note:
            sizes.setdefault((row.coupler, row.note), []).append(row.pool)
    return [
        f"{coupler}, pool {', '.join(f'{size:,}' for size in pools)}: {note}"
        for (coupler, note), pools in sizes.items()
    ]


def training_facts(found: training.Training) -> list[str]:
    """Return what all variants have in common, and why some were not measured."""
    return [
        f"{found.parameters:,} parameters; {found.flops / 1e9:.3g} GFLOP an image, forward and "
        f"backward; batch {found.batch_size:,}, pool {found.pool_size:,}",
        f"for a batch: data {time_text(found.seconds_data)} alone, coupling "
        f"{time_text(found.seconds_coupling)} beside the training",
        *(f"{row.variant}: {row.note}" for row in found.rows if row.note),
    ]


def sampling_facts(found: sampling.Sampling) -> list[str]:
    """Return what all rows have in common, and why some were not measured."""
    told = [f"{r.steps} steps, batch {r.batch_size:,}: {r.note}" for r in found.rows if r.note]
    return [
        f"{found.parameters:,} parameters; {found.flops / 1e9:.3g} GFLOP a call and image",
        *told,
    ]


def couplers_report(
    rows: Sequence[couplers.Row],
    pools: Pools,
    limits: couplers.Limits,
    plugins: Plugins,
    data: str,
) -> dict[str, Any]:
    """Return what was measured, on what and where, for programs.

    Args:
        rows: all rows.
        pools: pools that were paired.
        limits: limits of the measurement.
        plugins: plugins that were loaded.
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
