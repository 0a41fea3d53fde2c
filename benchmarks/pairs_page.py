"""Write docs/results/pairs.md from the scores that `pairs_scores.py` measured.

    python benchmarks/pairs_page.py docs/results/pairs.jsonl

The interpretation in `docs/results/pairs_reading.md` is written by hand and inserted into the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pairs_scores import MULTISTEP, is_independent

RESULTS = Path(__file__).parents[1] / "docs" / "results"
READING = RESULTS / "pairs_reading.md"
PICTURE = RESULTS.parent / "images" / "pairs.png"

NAMES = {
    "edm": "EDM",
    "edm_edm-levels": "EDM, trained with its own noise distribution",
    "edm-aot-512": "EDM-AOT, pools of 512",
    "edm-aot-512-coupled": "EDM-AOT, pools of 512, coupled preconditioner",
    "edm-aot-1536": "EDM-AOT, pools of 1,536",
    "semidiscrete": "semidiscrete",
    "flow": "flow matching",
    "ot-flow": "OT flow matching, pools of 512",
}
OWN = {
    name: "uniform times" if "flow" in name else "rho 7" if is_independent(name) else "rho 90"
    for name in NAMES
}
"""Dict from method to the noise levels of its paper; for `semidiscrete`, those of EDM-AOT."""

HOW = (
    "- `OMP_NUM_THREADS=1 python benchmarks/pairs_trainings.py --images 600000 2400000 --seeds 0 1 2`: trains "
    "residual perceptrons with the seeds 0, 1 and 2 and batches of 256",
    "- the same with `--methods edm --levers edm-levels`: EDM with its own noise distribution",
    "- `OMP_NUM_THREADS=1 python benchmarks/pairs_scores.py runs/pairs/*/*denoiser/denoiser.safetensors`: "
    "scores 4,096 samples with noise of seed 0; noise levels are fitted with noise of seed 1",
    "- `python benchmarks/pairs_page.py docs/results/pairs.jsonl` writes this page",
    "- *dirty* is the given commit with later versions of these scripts",
)

Scores = dict[tuple[str, int, str, str, int], dict[int, dict[str, Any]]]
"""Dict from (method, images, schedule, start, steps) to a dict from the training seed to scores."""


def read(path: Path) -> tuple[Scores, list[str]]:
    """Return the scores in a file, and the commits and machines with which they were measured."""
    scores: Scores = defaultdict(dict)
    machines: dict[str, None] = {}
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if "made_with" in line:
            machines[line["made_with"]] = None
            continue
        name, schedule, start, steps = line["key"]
        method, images, seed = name.rsplit("-", 2)
        scores[method, int(images), schedule, start, steps][int(seed)] = line
    return scores, list(machines)


def spread_of(values: Sequence[float], digits: int) -> str:
    """Return the median of values as text, with minimum and maximum if there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(
    scores: Scores,
    images: int,
    rows: Iterable[tuple[str, str, str, str]],
    value: Callable[[dict[str, Any]], float],
    digits: int = 2,
) -> str:
    """Return a Markdown table of a score, with a column for each number of steps.

    There is a row for each method, schedule and start.

    Args:
        scores: all scores.
        images: number of training images.
        rows: label, method, schedule and start of each row.
        value: function that extracts the score from a record.
        digits: number of decimal places.
    """
    steps = sorted({key[4] for key in scores})
    head = " | ".join(f"{n} steps" for n in steps)
    lines = [f"| | NFE | {head} |", "|---|---|" + "--:|" * len(steps)]
    for label, method, schedule, start in rows:
        found = [scores.get((method, images, schedule, start, n), {}) for n in steps]
        if any(found):
            calls = [f"{next(iter(f.values()))['nfe']:g}" for f in found if f]
            shown = [spread_of([value(s) for s in f.values()], digits) if f else "" for f in found]
            lines.append(f"| {label} | {calls[0]} to {calls[-1]} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def rows_of(own: bool) -> list[tuple[str, str, str, str]]:
    """Return the rows of all methods.

    Args:
        own: whether methods use the noise levels of their papers; otherwise fitted levels.
    """
    rows = []
    for method, name in NAMES.items():
        schedule = OWN[method] if own else "fitted"
        exact = is_independent(method) or (own and "flow" in method)
        for start in ("noise",) if exact else ("noise", "corrected"):
            label = name if exact else f"{name}, start {start}"
            rows.append((label, method, schedule, start))
    return rows


def control() -> list[tuple[str, str, str, str]]:
    """Return rows in which coupling and noise levels vary independently.

    The noise levels are those of EDM from sigma_max 80 with rho 7 or 90, or fitted.
    """
    return [
        (f"{NAMES[method]}, {schedule}", method, schedule, start)
        for schedule in ("rho 7", "rho 90", "fitted")
        for method, start in (
            ("edm", "noise"),
            ("edm-aot-512", "corrected"),
            ("edm-aot-512-coupled", "corrected"),
        )
    ]


def multistep() -> list[tuple[str, str, str, str]]:
    """Return rows with levels that are fitted for the solver `dpmpp-2m`."""
    return [
        (name, method, MULTISTEP, "noise" if is_independent(method) else "corrected")
        for method, name in NAMES.items()
    ]


def worse_fits(scores: Scores) -> str:
    """Return a table of the training runs and starts for which a fit is worse than rho 7 or rho 90."""
    steps = sorted({key[4] for key in scores})
    counts, worst = dict.fromkeys(steps, 0), dict.fromkeys(steps, 1.0)
    totals = dict.fromkeys(steps, 0)
    for (method, images, schedule, start, number), runs in scores.items():
        for seed, line in runs.items() if schedule == "fitted" else ():
            fixed = [
                scores.get((method, images, f"rho {rho}", start, number), {}).get(seed)
                for rho in (7, 90)
            ]
            distances = [other["classifier"] for other in fixed if other]
            if not distances:  # flow matching
                continue
            ratio = line["classifier"] / min(distances)
            totals[number] += 1
            counts[number] += ratio > 1.001
            worst[number] = max(worst[number], ratio)
    return "\n".join(
        [
            "| | " + " | ".join(f"{n} steps" for n in steps) + " |",
            "|---|" + "--:|" * len(steps),
            "| cells that are worse | "
            + " | ".join(f"{counts[n]} of {totals[n]}" for n in steps)
            + " |",
            "| largest ratio | " + " | ".join(f"{worst[n]:.2f}" for n in steps) + " |",
        ]
    )


def draw(scores: Scores) -> None:
    """Draw the Fréchet distance against network calls, in a row for each length of the training.

    The left column has the noise levels of the papers, the right column fitted noise levels.
    """
    lengths = sorted({key[1] for key in scores})
    figure = Figure(figsize=(11, 4.4 * len(lengths)), layout="constrained", facecolor="white")
    panels = figure.subplots(len(lengths), 2, sharey=True, squeeze=False)
    for row, images in zip(panels, lengths, strict=True):
        for axes, own in zip(row, (True, False), strict=True):
            draw_lines(axes, scores, images, own)
        row[0].set_ylabel("Fréchet distance, classifier features")
    handles, labels = panels[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, frameon=False)
    figure.savefig(PICTURE, dpi=110)


def draw_lines(axes: Axes, scores: Scores, images: int, own: bool) -> None:
    """Draw a line for each method; error bars show the range over the training runs."""
    steps = sorted({key[4] for key in scores})
    colors = (
        "#555555",
        "#e69f00",
        "#0072b2",
        "#cc79a7",
        "#56b4e9",
        "#009e73",
        "#999999",
        "#d55e00",
    )
    # The corrected start is the last row of a method, so it replaces the start from noise.
    best = {row[1]: row for row in rows_of(own)}
    for (method, row), color in zip(best.items(), colors, strict=True):
        cells = [scores.get((method, images, row[2], row[3], n), {}) for n in steps]
        runs = [list(cell.values()) for cell in cells if cell]
        if not runs:
            continue
        each = [[run["classifier"] for run in cell] for cell in runs]
        middle = [statistics.median(values) for values in each]
        below = [m - min(v) for m, v in zip(middle, each, strict=True)]
        above = [max(v) - m for m, v in zip(middle, each, strict=True)]
        axes.errorbar(
            [cell[0]["nfe"] for cell in runs],
            middle,
            [below, above],
            fmt="o--" if "flow" in method else "o-",
            color=color,
            label=NAMES[method],
            capsize=3,
            markersize=4,
        )
    levels = "noise levels of each paper" if own else "noise levels fitted to each denoiser"
    axes.set_title(f"{images:,} images, {levels}", loc="left", fontweight="bold")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([3, 5, 7, 9, 13, 27, 35], labels=["3", "5", "7", "9", "13", "27", "35"])
    axes.set_yticks([3, 10, 30, 100, 300, 1000], labels=["3", "10", "30", "100", "300", "1,000"])
    axes.minorticks_off()
    axes.set_xlabel("NFE: calls of the denoiser per sample")
    axes.grid(alpha=0.3)


def page(scores: Scores, machines: Sequence[str]) -> str:
    """Return the page."""
    lengths = sorted({key[1] for key in scores})
    parts = [READING.read_text(encoding="utf-8").strip()]

    def add(title: str, body: str) -> None:
        parts.extend([title, body])

    def distance(line: dict[str, Any]) -> float:
        return float(line["classifier"])

    for images in lengths:
        parts.append(f"## {images:,} images: the noise levels of each paper")
        parts.append(table(scores, images, rows_of(True), distance))
        add(
            f"## {images:,} images: fitted noise levels",
            table(scores, images, rows_of(False), distance),
        )
        if any(key[1:3] == (images, MULTISTEP) for key in scores):
            add(
                f"## {images:,} images: fitted noise levels, the solver `dpmpp-2m`",
                "The columns have the network calls of the other tables: two for each step of Heun's "
                "method, minus one.\n\n" + table(scores, images, multistep(), distance),
            )
        add(
            f"## {images:,} images: effects of pairs and of noise levels, separated",
            table(scores, images, control(), distance),
        )
        add(
            f"## {images:,} images: distance in pixels, fitted noise levels",
            table(scores, images, rows_of(False), lambda line: float(line["pixels"]), 3),
        )
        add(
            f"## {images:,} images: spread, mean of three directions, fitted noise levels",
            table(scores, images, rows_of(False), lambda x: statistics.fmean(x["spread"]), 3),
        )
    add(
        "## Fitted noise levels that are worse than the better one of rho 7 and rho 90",
        "By more than 0.1 %, with Heun's method. Each training run and start is a cell; flow matching is "
        "left out.\n\n" + worse_fits(scores),
    )
    add(
        "## How it was measured", "\n".join([*HOW, *(f"- Scored with {line}" for line in machines)])
    )
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Parse the command line and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path, help="file that pairs_scores.py wrote")
    scores, machines = read(parser.parse_args().scores)
    (RESULTS / "pairs.md").write_text(page(scores, machines), encoding="utf-8")
    draw(scores)


if __name__ == "__main__":
    main()
