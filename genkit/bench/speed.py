"""What ``genkit bench train`` and ``genkit bench sample`` found, as people read it."""

from __future__ import annotations

from rich.box import SIMPLE
from rich.table import Table

from genkit.bench.contender import PHASES
from genkit.bench.report import memory_text, time_text
from genkit.bench.sampling import Sampling
from genkit.bench.training import Training
from genkit.bench.variants import PLAIN

TRAINING_CAPTION = f"""\
images/s: median of the rounds, with all that training waits for
against {PLAIN}: median of the ratios within a round; {PLAIN} is eager float32, NCHW, attention by
     explicit matrices, the optimizer tensor by tensor, the host waiting for every loss
{", ".join(PHASES)}: of a step, each waited for, so that together they take longer
waiting: that a step stood still for its pairs
memory: the most that weights, averages, optimizer and a step need
of peak: share of the device's greatest speed in this precision, as its maker states it"""

SAMPLING_CAPTION = """\
images/s: median of the rounds
network, solver: of a batch; the solver has all that is not the network
memory: the most that is held beside the weights
of peak: share of the device's greatest speed in TF32, as its maker states it"""


def training_table(found: Training) -> Table:
    """Return the variants that were measured as a table."""
    table = _table(
        "variant", "images/s", f"against {PLAIN}", *PHASES, "waiting", "memory", "of peak"
    )
    for row in found.rows:
        if row.images_per_second is not None:
            table.add_row(
                row.variant,
                f"{row.images_per_second:,.4g}",
                "" if row.against_plain is None else f"{row.against_plain:.2f}x",
                *(time_text(row.phases[name]) for name in PHASES),
                time_text(row.seconds_waited or 0.0),
                "" if row.peak_bytes is None else memory_text(row.peak_bytes),
                "" if row.utilization is None else f"{row.utilization:.0%}",
            )
    return table


def training_facts(found: Training) -> list[str]:
    """Return what all variants have in common, and why some were not measured."""
    return [
        f"{found.parameters:,} parameters; {found.flops / 1e9:.3g} GFLOP an image, forward and "
        f"backward; batch {found.batch_size:,}, pool {found.pool_size:,}",
        f"beside the training, for a batch: data {time_text(found.seconds_data)}, coupling "
        f"{time_text(found.seconds_coupling)}",
        *(f"{row.variant}: {row.note}" for row in found.rows if row.note),
    ]


def sampling_table(found: Sampling) -> Table:
    """Return what was measured as a table."""
    table = _table("steps", "batch", "NFE", "images/s", "network", "solver", "memory", "of peak")
    for row in found.rows:
        if row.images_per_second is not None:
            table.add_row(
                str(row.steps),
                f"{row.batch_size:,}",
                str(row.nfe),
                f"{row.images_per_second:,.4g}",
                time_text(row.seconds_network or 0.0),
                time_text(row.seconds_solver or 0.0),
                "" if row.peak_bytes is None else memory_text(row.peak_bytes),
                "" if row.utilization is None else f"{row.utilization:.0%}",
            )
    return table


def sampling_facts(found: Sampling) -> list[str]:
    """Return what all rows have in common, and why some were not measured."""
    return [
        f"{found.parameters:,} parameters; {found.flops / 1e9:.3g} GFLOP a call and image",
        *(
            f"{row.steps} steps, batch {row.batch_size:,}: {row.note}"
            for row in found.rows
            if row.note
        ),
    ]


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table
