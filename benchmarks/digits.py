"""Measure EDM against EDM-AOT, and EDM-AOT with and without guidance, on the digits.

    python benchmarks/digits.py --seeds 0 1 2

runs the shipped recipes `edm` and `edm_aot_dg` for every seed (the denoiser of `edm_aot_dg` is that
of `edm_aot`: same settings, same seed, same weights) and writes `docs/results/digits.md` and
`docs/images/digits.png`. Finished runs are not repeated. What the figures mean is written by hand, in
`docs/results/digits_reading.md`, and becomes a part of the page.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import genkit

RESULTS = Path(__file__).parents[1] / "docs" / "results"
READING = RESULTS / "digits_reading.md"
PICTURE = RESULTS.parent / "images" / "digits.png"
STEPS = {9: 5, 13: 7, 17: 9, 27: 14, 35: 18}
FEWEST = min(STEPS)
SCORE = "frechet_classifier"
METHODS = ("EDM", "EDM-AOT", "EDM-AOT + DG")
Run = dict[str, Any]


SETS, SAMPLES = 3, 5_000  # of each training; so few samples alone cost the distance about 4


def measure(seed: int, out: Path, device: str) -> Run:
    """Run both recipes with a seed and return their scores by method."""
    settings = {
        "seed": seed,
        "sweep.count": SETS * SAMPLES,
        "sweep.sets": SETS,
        "sweep.vary.schedule.steps": list(STEPS.values()),
    }
    edm, aot = (
        genkit.run_recipe(
            recipe, out=out / f"{recipe}-{seed}", settings=settings, device=device, progress=True
        )
        for recipe in ("edm", "edm_aot_dg")
    )
    plain = [row for row in aot.scores["sweep"] if row["guidance.weight"] == 0]
    guided = [row for row in aot.scores["sweep"] if row["guidance.weight"] != 0]
    sweeps = dict(zip(METHODS, (edm.scores["sweep"], plain, guided), strict=True))
    return {
        "seed": seed,
        "runs": (edm, aot),
        "frechet": {m: {row["nfe"]: row[SCORE] for row in s} for m, s in sweeps.items()},
        "sets": {m: {row["nfe"]: row[f"{SCORE}_std"] for row in s} for m, s in sweeps.items()},
        "guidance_nfe": {row["nfe"]: row["guidance_nfe"] for row in guided},
        "trajectories": {
            m: run.scores["scores"][0] for m, run in zip(METHODS, (edm, aot), strict=False)
        },
        "facts": [
            json.loads((run.folder / "results.json").read_text())["stages"]["sweep"]["facts"][SCORE]
            for run in (edm, aot)
        ],
    }


def page(runs: Sequence[Run], command: str) -> str:
    """Return the page of results."""
    environment = json.loads((runs[0]["runs"][0].folder / "environment.json").read_text())
    packages = ", ".join(f"{k} {v}" for k, v in environment["packages"].items())
    facts = runs[0]["facts"][0]
    return f"""# Digits: EDM against EDM-AOT

Real data: the 1,797 handwritten digits that genkit carries, 8x8 pixels. Network, batch, images seen,
learning rate and seed are the same for both; noise is drawn at random for EDM, and assigned by the
Hungarian algorithm within pools of 512 for EDM-AOT. The guided rows use the same EDM-AOT denoiser
and a discriminator that was trained on AOT pairs as well.

Samples and digits are compared as images of 8 bits, as images are published. The Fréchet distance is
taken over the features of a small classifier of these digits, the same for all columns and for every
later page. **It is no FID** and compares with no published figure. Its scale is that of the features,
which are not normalized. Curvature and truncation error are defined in `genkit show curvature` and
`genkit show truncation`. Lower is better everywhere.

## Mean over {len(runs)} trainings, with the standard deviation over them

Each training is scored with {SETS} disjoint sets of {SAMPLES:,} samples, whose mean is taken.

{_frechet_table(runs)}

{_trajectory_table(runs)}

{READING.read_text(encoding="utf-8").strip()}

![Samples of EDM and EDM-AOT from the same noise, and Frechet distance against NFE](../images/digits.png)

## Each training, with the standard deviation over its sets

{_seed_table(runs)}

## How it was made

- Command: `{command}`
- Commit: {_commit()}
- Hardware: {environment["hardware"]}, {environment["cores"]} cores, threads used: {environment["threads"]}
- Versions: Python {environment["python"]}, {packages}
- Samples: {SETS} sets of {facts["samples"]} for each score, seeds 0 to {SETS * SAMPLES - 1:,}, against {facts["reference"]} real images; {facts["features"]} features
- Protocol: {facts["protocol"]}
- Extractor: {facts["extractor"]}

The digits are tiny and the training is short. The table shows what the coupling changes at equal
cost; it says nothing about image quality on larger data.
"""


def _spread(values: Sequence[float]) -> str:
    """Return the mean of values, with their standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def _of(runs: Sequence[Run], method: str, nfe: int) -> list[float]:
    return [run["frechet"][method][nfe] for run in runs]


def _frechet_table(runs: Sequence[Run]) -> str:
    head = "| Frechet distance at | " + " | ".join(f"{nfe} NFE" for nfe in STEPS) + " |"
    rows = [
        f"| {m} | " + " | ".join(_spread(_of(runs, m, nfe)) for nfe in STEPS) + " |"
        for m in METHODS
    ]
    calls = runs[0]["guidance_nfe"]
    rows.append(
        "| calls of the discriminator | " + " | ".join(f"+{calls[n]}" for n in STEPS) + " |"
    )
    return "\n".join([head, "|---" * (len(STEPS) + 1) + "|", *rows])


def _trajectory_table(runs: Sequence[Run]) -> str:
    lines = ["| | mean curvature | truncation error, 5 steps |", "|---|---|---|"]
    for method in METHODS[:2]:
        found = [run["trajectories"][method] for run in runs]
        curvature = _spread([row["curvature"] for row in found])
        truncation = _spread([row["truncation_5"] for row in found])
        lines.append(f"| {method} | {curvature} | {truncation} |")
    return "\n".join(lines)


def _seed_table(runs: Sequence[Run]) -> str:
    nfes = " | ".join(f"{nfe} NFE" for nfe in STEPS)
    lines = [
        f"| seed | method | {nfes} | curvature | truncation |",
        "|---" * (len(STEPS) + 4) + "|",
    ]
    for run in runs:
        for method in METHODS:
            found, sets = run["frechet"][method], run["sets"][method]
            scores = " | ".join(f"{found[nfe]:.2f} ± {sets[nfe]:.2f}" for nfe in STEPS)
            row = run["trajectories"].get(method)
            ends = f"{row['curvature']:.2f} | {row['truncation_5']:.2f}" if row else " | "
            lines.append(f"| {run['seed']} | {method} | {scores} | {ends} |")
    return "\n".join(lines)


def draw(runs: Sequence[Run], device: str) -> None:
    """Draw samples of both denoisers from the same noise, and the score against NFE."""
    figure = Figure(figsize=(13, 4.2), layout="constrained", facecolor="white")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    for axes, run, method in zip((left, middle), runs[0]["runs"], METHODS, strict=False):
        images = run.denoiser(device=device).sample(64, schedule={"steps": STEPS[FEWEST]})[:, 0]
        axes.imshow(_tiles(images), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(f"{method}, {FEWEST} NFE", loc="left", fontweight="bold")
        axes.set_axis_off()
    for method, colour in zip(METHODS, ("#555555", "#0072b2", "#d55e00"), strict=True):
        each = [_of(runs, method, nfe) for nfe in STEPS]
        values, spread = map(statistics.fmean, each), map(statistics.stdev, each)
        right.errorbar(
            list(STEPS), list(values), list(spread), fmt="o-", color=colour, label=method, capsize=3
        )
    right.set_yscale("log")
    right.set_xticks(list(STEPS))
    right.set_xlabel("NFE: calls of the denoiser for each sample")
    right.set_title("Fréchet distance, classifier features", loc="left", fontweight="bold")
    right.grid(alpha=0.3)
    right.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


def _tiles(images: torch.Tensor) -> torch.Tensor:
    """Return 64 images as one of 8x8 tiles, a pixel apart."""
    framed = torch.nn.functional.pad(images.clamp(-1, 1), (0, 1, 0, 1), value=1.0)
    size = framed.shape[-1]
    return framed.reshape(8, 8, size, size).permute(0, 2, 1, 3).reshape(8 * size, 8 * size)


def _commit() -> str:
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/digits-results"))
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    runs = [measure(seed, chosen.out, chosen.device) for seed in chosen.seeds]
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    command = f"{threads} python benchmarks/digits.py --seeds {' '.join(map(str, chosen.seeds))}"
    (RESULTS / "digits.md").write_text(page(runs, command), encoding="utf-8")
    PICTURE.parent.mkdir(exist_ok=True)
    draw(runs, chosen.device)
    print(_frechet_table(runs))


if __name__ == "__main__":
    main()
