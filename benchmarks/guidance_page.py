"""Write docs/results/guidance.md from the scores that `guidance_scores.py` measured.

    python benchmarks/guidance_page.py docs/results/guidance.jsonl

The interpretation in `docs/results/guidance_reading.md` is written by hand and inserted into the page.
`guidance_picture.py` draws the picture.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import guidance_published
from guidance_picture import draw
from guidance_scores import INTERVALS, MAIN, ONCE, SECOND_WEIGHTS

RESULTS = Path(__file__).parents[1] / "docs" / "results"
READING = RESULTS / "guidance_reading.md"

SCORE = "frechet_classifier"
METHODS = {"edm": "EDM", "edm-aot": "EDM-AOT"}
GUIDANCES = {
    "dg": "DG",
    "aot-dg": "AOT-DG",
    "classifier-free": "classifier-free",
    "autoguidance": "autoguidance",
}
ARMS = {
    "published": "weight 2, first order, published range",
    "sweep-first": "sweep of weight and range, first order",
    "sweep-both": "sweep of weight and range, both orders",
    "sweep-both-published-range": "sweep of weight, both orders, published range",
    "by-level-first": "w*, first order",
    "by-level-both": "w*, both orders",
}
SCHEDULES = {"paper": "the noise levels of each paper", "fitted": "fitted noise levels"}
AT = (0.05, 0.2, 1.0, 5.0, 20.0)
"""Noise levels at which the table shows the fitted weight."""

HOW = (
    "- `OMP_NUM_THREADS=1 python benchmarks/guidance_trainings.py --seeds 0 1 2`",
    "- `OMP_NUM_THREADS=1 python benchmarks/guidance_scores.py --seeds 0 1 2`: three sets of 5,000 "
    "samples for each training run; weights are chosen with 2,048 other samples",
    "- `python benchmarks/guidance_page.py docs/results/guidance.jsonl`",
)

Line = dict[str, Any]
Row = tuple[str, str, str, str]
"""Label, method, guidance and arm."""


@dataclass
class Measured:
    """All scores in a file.

    Attributes:
        scores: dict from (method, schedule, steps, guidance, arm) to a dict from seed to scores.
        discriminators: dict from (method, guidance) to a dict from seed to the chosen snapshot and
            the fitted weight.
        machines: commits and machines with which the scores were measured.
    """

    scores: dict[tuple[str, str, int, str, str], dict[int, Line]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    discriminators: dict[tuple[str, str], dict[int, Line]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    machines: dict[str, None] = field(default_factory=dict)

    @property
    def steps(self) -> list[int]:
        """Numbers of steps for which there are scores, ascending."""
        return sorted({key[2] for key in self.scores})

    @classmethod
    def read(cls, path: Path) -> Measured:
        """Return the scores in a file."""
        measured = cls()
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if "made_with" in line:
                measured.machines[line["made_with"]] = None
            elif "discriminator" in line:
                method, seed, guidance = line["discriminator"]
                measured.discriminators[method, guidance][seed] = line
            else:
                method, seed, schedule, steps, guidance, arm = line["key"]
                measured.scores[method, schedule, steps, guidance, arm][seed] = line
        return measured


def spread_of(values: Sequence[float], digits: int = 2) -> str:
    """Return the mean over training runs as text, with the standard deviation if there are several."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def frechet(lines: Sequence[Line]) -> str:
    """Return the Fréchet distance for a cell of a table; ``lines`` are the scores of its runs.

    The number of training runs is in parentheses. With a single run, the standard deviation is that
    over its sets of samples.
    """
    text = spread_of([line[SCORE] for line in lines])
    if len(lines) == 1:
        text += f" ± {lines[0][SCORE + '_std']:.2f}"
    return f"{text} ({len(lines)})"


def spread(lines: Sequence[Line]) -> str:
    """Return the ratio of the standard deviations of samples and data in pixel space."""
    return spread_of([line["spread_pixels"] for line in lines], 3)


def agreement(lines: Sequence[Line]) -> str:
    """Return the share of samples that the classifier assigns to the requested class."""
    return spread_of([line["class_agreement_classifier"] for line in lines], 3)


def chosen(lines: Sequence[Line]) -> str:
    """Return each combination that sweeps chose, with the number of training runs that chose it."""
    best = [min(line["tried"], key=lambda row: row[SCORE]) for line in lines]
    counts = Counter(
        f"weight {row['guidance.weight']:g} up to {row.get('guidance.sigma_max', 152.2):g}"
        if row["guidance.weight"]
        else "none"
        for row in best
    )
    return ", ".join(f"{what} ({count})" for what, count in counts.items())


def cost(lines: Sequence[Line]) -> str:
    """Return the network calls and the arithmetic of a sample as text, as means over training runs.

    The last number is guidance's share of the arithmetic.
    """

    def mean(value: Callable[[Line], float]) -> float:
        return statistics.fmean(value(line) for line in lines)

    nfe, guiding = mean(lambda x: x["nfe"]), mean(lambda x: x["guidance_nfe"])
    whole = mean(lambda x: x["cost"]["nfe_equivalents"])
    operations = mean(lambda x: x["cost"]["gflop_per_image"])
    calls = f"{nfe:.1f}".removesuffix(".0") + (f" + {guiding:.1f}" if guiding else "")
    return f"{calls}; {whole:.1f}; {operations:.3f}; {1 - nfe / whole:.0%}"


def table(
    measured: Measured,
    schedule: str,
    rows: Iterable[Row],
    cell: Callable[[Sequence[Line]], str],
    steps: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> str:
    """Return a Markdown table with a column for each number of steps; empty if it has no scores.

    Args:
        measured: all scores.
        schedule: name of the schedule.
        rows: label, method, guidance and arm of each row.
        cell: function that returns the text of a cell from the scores of its training runs.
        steps: numbers of steps; None for all.
        seeds: seeds of the training runs; None for all.
    """
    steps = measured.steps if steps is None else steps
    lines = ["| | " + " | ".join(f"{n} steps" for n in steps) + " |", "|---|" + "--:|" * len(steps)]
    for label, method, guidance, arm in rows:
        found = [measured.scores.get((method, schedule, n, guidance, arm), {}) for n in steps]
        if any(found):
            cells = []
            for scores in found:
                runs = [line for seed, line in scores.items() if seeds is None or seed in seeds]
                cells.append(cell(runs) if runs else "")
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def rows_of(end: str, arms: Iterable[str], *, unguided: bool = True) -> list[Row]:
    """Return the rows of both methods with all discriminators.

    Args:
        end: suffix of the names of the methods, such as ``-cond``.
        arms: arms of each discriminator.
        unguided: whether there are also rows for denoisers without guidance.
    """
    rows = []
    for method, name in METHODS.items():
        if unguided:
            rows.append((name, method + end, "none", "none"))
        for guidance in ("dg", "aot-dg"):
            label = f"{name} + {GUIDANCES[guidance]}"
            rows += [(f"{label}, {ARMS[arm]}", method + end, guidance, arm) for arm in arms]
    return rows


def second_table(
    measured: Measured,
    method: str,
    schedule: str,
    steps: int,
    cell: Callable[[Sequence[Line]], str],
) -> str:
    """Return a Markdown table of guidance by a second denoiser, with a row for each weight."""
    columns = [(g, i) for g in ("classifier-free", "autoguidance") for i in INTERVALS]
    head = " | ".join(f"{g}, {INTERVALS[i] or 'everywhere'}" for g, i in columns)
    lines = [f"| weight | {head} |", "|--:|" + "--:|" * len(columns)]
    none = measured.scores.get((method, schedule, steps, "none", "none"))
    if none:
        lines.append("| 0 |" + f" {cell(list(none.values()))} |" * len(columns))
    for weight in SECOND_WEIGHTS:
        runs = [
            measured.scores.get((method, schedule, steps, g, f"{weight:g}-{i}"), {})
            for g, i in columns
        ]
        cells = [cell(list(f.values())) if f else "" for f in runs]
        lines.append(f"| {weight:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def weight_table(measured: Measured) -> str:
    """Return a table of the chosen snapshots, and of the fitted weight at some noise levels."""
    head = " | ".join(f"w* at {sigma:g}" for sigma in AT)
    lines = [f"| discriminator | images of the snapshot | {head} |", "|---|--:|" + "--:|" * len(AT)]
    for (method, guidance), seeds in measured.discriminators.items():
        images = ", ".join(f"{line['chosen']['chosen']:,}" for line in seeds.values())
        cells = []
        for sigma in AT:
            near = [
                min(
                    zip(w["sigmas"], w["weights"], strict=True), key=lambda p: abs(p[0] / sigma - 1)
                )
                for w in (line["weight"] for line in seeds.values())
            ]
            cells.append(spread_of([weight for _, weight in near]))
        lines.append(f"| {method}, {GUIDANCES[guidance]} | {images} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(measured: Measured) -> str:
    """Return the page."""
    parts = [READING.read_text(encoding="utf-8").strip()]
    schedule_of_all, steps_of_all = ONCE
    orders = ("sweep-first", "sweep-both", "by-level-first", "by-level-both")
    ranges = ("published", "sweep-both-published-range", "sweep-both")

    def add(title: str, body: str) -> None:
        if body:
            parts.extend([title, body])

    for end, kind in (("", "Unconditional"), ("-cond", "Class-conditional")):
        for schedule, levels in SCHEDULES.items():
            about = f"{kind}, {levels}"
            for title, cell in (
                (f"## {about}", frechet),
                (f"### {about}: spread of the samples", spread),
                (f"### {about}: NFE; NFE-equivalents; GFLOP; share of guidance", cost),
            ):
                add(title, table(measured, schedule, rows_of(end, MAIN), cell))
            rows = rows_of(end, ["sweep-both"], unguided=False)
            title = f"### {about}: choices of the sweeps, with the number of training runs"
            add(title, table(measured, schedule, rows, chosen))
    about = f"Unconditional, {SCHEDULES[schedule_of_all]}, first training run"
    for title, arms in (
        ("guidance of first order and of both orders", orders),
        ("published and fitted range of noise levels", ranges),
    ):
        rows = rows_of("", arms)
        for cell, what in ((frechet, ""), (cost, ", cost")):
            body = table(measured, schedule_of_all, rows, cell, [steps_of_all], [0])
            add(f"## {about}: {title}{what}", body)
    add("## Snapshots and fitted weights", weight_table(measured))
    for method, name in METHODS.items():
        for schedule, levels in SCHEDULES.items():
            for steps in measured.steps:
                key = (f"{method}-second", schedule, steps)
                if (*key, "none", "none") in measured.scores:
                    about = f"Guidance by a second denoiser, {name}, {levels}, {steps} steps"
                    add(f"## {about}: Fréchet distance", second_table(measured, *key, frechet))
                    add(f"### {about}: spread", second_table(measured, *key, spread))
                    add(f"### {about}: class agreement", second_table(measured, *key, agreement))
                    add(f"### {about}: cost", second_table(measured, *key, cost))
    parts += ["## Cost of the published networks", guidance_published.table()]
    made = [f"- Scored with {line}" for line in measured.machines]
    made.append("- `dirty`: the scripts of the benchmark are later than the commit")
    parts += ["## How it was measured", "\n".join([*HOW, *made])]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path, help="file that guidance_scores.py wrote")
    parser.add_argument("--out", type=Path, default=RESULTS / "guidance.md")
    parser.add_argument("--picture", type=Path, default=RESULTS.parent / "images" / "guidance.png")
    options = parser.parse_args()
    measured = Measured.read(options.scores)
    options.out.write_text(page(measured), encoding="utf-8")
    draw(measured.scores, measured.discriminators, options.picture)


if __name__ == "__main__":
    main()
