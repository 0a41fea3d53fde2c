"""Compare EDM with EDM-AOT on the digits, from both starts, with and without guidance.

    python benchmarks/digits.py --seeds 0 1 2

runs the shipped recipes `edm` and `edm_aot_dg` for every seed, and writes `docs/results/digits.md` and
`docs/images/digits.png`. The denoiser of `edm_aot_dg` is that of `edm_aot`: settings, seed and weights
are the same. Finished runs are not repeated. The interpretation in `docs/results/digits_reading.md` is
written by hand and inserted into the page.
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
STEPS = {5: 9, 7: 13, 9: 17, 14: 27, 18: 35}
"""Dict from the number of Heun steps to calls of the denoiser; the corrected start takes one more.
"""

SCORE = "frechet_classifier"
PUBLISHED, CORRECTED = "EDM-AOT, start from noise", "EDM-AOT, corrected start"
METHODS = ("EDM", PUBLISHED, CORRECTED, "EDM-AOT + DG, corrected start")
Run = dict[str, Any]


# Number of sample sets for each training run, and number of samples in a set. With so few samples, the
# Fréchet distance has a bias of about 4.
SETS, SAMPLES = 3, 5_000


def measure(seed: int, out: Path, device: str) -> Run:
    """Run both recipes with a seed and return their scores by method and number of steps."""
    common = {
        "seed": seed,
        "sweep.count": SETS * SAMPLES,
        "sweep.sets": SETS,
        "sweep.vary.schedule.steps": list(STEPS),
    }

    def run(recipe: str, **settings: Any) -> Run:
        result = genkit.run_recipe(
            recipe,
            out=out / f"{recipe}-{seed}",
            settings=common | settings,
            device=device,
            progress=True,
        )
        written = json.loads((result.folder / "results.json").read_text())["stages"]["sweep"]
        return {"run": result, "rows": result.scores["sweep"], "facts": written["facts"][SCORE]}

    edm = run("edm")
    # Both runs use one folder, so that the networks are trained only once.
    starts = {"sweep.vary.start": ["noise", "corrected"]}
    aot = run("edm_aot_dg", **{"sweep.vary.guidance.weight": [0.0]}, **starts)
    guided = run(
        "edm_aot_dg", **{"sweep.vary.guidance.weight": [1.0], "sweep.vary.start": ["corrected"]}
    )
    rows = {
        "EDM": edm["rows"],
        PUBLISHED: [row for row in aot["rows"] if row["start"] == "noise"],
        CORRECTED: [row for row in aot["rows"] if row["start"] == "corrected"],
        METHODS[-1]: guided["rows"],
    }
    steps = "schedule.steps"
    return {
        "seed": seed,
        "runs": (edm["run"], aot["run"]),
        "frechet": {m: {row[steps]: row[SCORE] for row in s} for m, s in rows.items()},
        "sets": {m: {row[steps]: row[f"{SCORE}_std"] for row in s} for m, s in rows.items()},
        "guidance_nfe": {row[steps]: row["guidance_nfe"] for row in guided["rows"]},
        "trajectories": {
            "EDM": edm["run"].scores["scores"][0],
            CORRECTED: aot["run"].scores["scores"][0],
        },
        "facts": edm["facts"],
    }


def page(runs: Sequence[Run], command: str) -> str:
    """Return the page of results."""
    environment = json.loads((runs[0]["runs"][0].folder / "environment.json").read_text())
    packages = ", ".join(f"{k} {v}" for k, v in environment["packages"].items())
    facts = runs[0]["facts"]
    return f"""# Digits: EDM against EDM-AOT

The data are the 1,797 handwritten digits that are part of genkit, of 8x8 pixels. Network, batch size, number of training
images, learning rate and seed are the same for both methods. For EDM, noise is independent of the images. For EDM-AOT, it is
assigned by the Hungarian algorithm in pools of 512. Samples of EDM-AOT start from noise, as published, or
from the [corrected start](../explanation/science.md#the-start), which takes one more call of the denoiser. The
guided rows (DG) use the same EDM-AOT denoiser and a discriminator that is also trained with assigned noise. The weight of
guidance is 1.

Samples and digits are compared as 8-bit images. The Fréchet distance is computed in the features of a small classifier of
these digits, which is the same for all scores of this page and of the other pages. **It is not an FID**, and is not
comparable with published figures. The features are not normalized. Curvature and truncation error are defined in
[The method](../explanation/science.md#what-is-measured). Lower is better in all tables.

## Mean and standard deviation over {len(runs)} training runs

The score of a training run is the mean over {SETS} disjoint sets of {SAMPLES:,} samples.

{_frechet_table(runs)}

{_trajectory_table(runs)}

{READING.read_text(encoding="utf-8").strip()}

![Samples of EDM and EDM-AOT from the same noise, and Fréchet distance against NFE](../images/digits.png)

## Each training run, with the standard deviation over its sets of samples

{_seed_table(runs)}

## How it was measured

- Command: `{command}`
- Commit: {_commit()}
- Hardware: {environment["hardware"]}, {environment["cores"]} cores, threads used: {environment["threads"]}
- Versions: Python {environment["python"]}, {packages}
- Samples: {SETS} sets of {facts["samples"]} for each score, seeds 0 to {SETS * SAMPLES - 1:,}, against {facts["reference"]} real images; {facts["features"]} features
- Protocol: {facts["protocol"]}
- Extractor: {facts["extractor"]}

The images are tiny and the training is short. The tables show the effect of the coupling at equal
cost. They do not show image quality on larger data.
"""


def _spread(values: Sequence[float]) -> str:
    """Return the mean of values as text, with the standard deviation if there are several."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def _of(runs: Sequence[Run], method: str, steps: int) -> list[float]:
    return [run["frechet"][method][steps] for run in runs]


def _head() -> str:
    return " | ".join(f"{steps} steps, {nfe} NFE" for steps, nfe in STEPS.items())


def _frechet_table(runs: Sequence[Run]) -> str:
    head = f"| Fréchet distance | {_head()} |"
    rows = [
        f"| {m} | " + " | ".join(_spread(_of(runs, m, steps)) for steps in STEPS) + " |"
        for m in METHODS
    ]
    rows.append("| calls for the corrected start |" + " +1 |" * len(STEPS))
    calls = runs[0]["guidance_nfe"]
    rows.append(
        "| calls of the discriminator | " + " | ".join(f"+{calls[n]}" for n in STEPS) + " |"
    )
    return "\n".join([head, "|---" * (len(STEPS) + 1) + "|", *rows])


def _trajectory_table(runs: Sequence[Run]) -> str:
    lines = ["| | mean curvature | truncation error, 5 steps |", "|---|---|---|"]
    for method in runs[0]["trajectories"]:
        found = [run["trajectories"][method] for run in runs]
        curvature = _spread([row["curvature"] for row in found])
        truncation = _spread([row["truncation_5"] for row in found])
        lines.append(f"| {method} | {curvature} | {truncation} |")
    return "\n".join(lines)


def _seed_table(runs: Sequence[Run]) -> str:
    lines = [
        f"| seed | method | {_head()} | curvature | truncation |",
        "|---" * (len(STEPS) + 4) + "|",
    ]
    for run in runs:
        for method in METHODS:
            found, sets = run["frechet"][method], run["sets"][method]
            scores = " | ".join(f"{found[k]:.2f} ± {sets[k]:.2f}" for k in STEPS)
            row = run["trajectories"].get(method)
            ends = f"{row['curvature']:.2f} | {row['truncation_5']:.2f}" if row else " | "
            lines.append(f"| {run['seed']} | {method} | {scores} | {ends} |")
    return "\n".join(lines)


def draw(runs: Sequence[Run], device: str) -> None:
    """Draw samples of both denoisers from the same noise, and plot the score against NFE."""
    figure = Figure(figsize=(13, 4.2), layout="constrained", facecolor="white")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    fewest = min(STEPS)
    titles = (f"EDM, {STEPS[fewest]} NFE", f"{CORRECTED}, {STEPS[fewest] + 1} NFE")
    panels = zip((left, middle), runs[0]["runs"], titles, ("noise", "corrected"), strict=True)
    for axes, run, title, start in panels:
        denoiser = run.denoiser(device=device)
        images = denoiser.sample(64, schedule={"steps": fewest}, start=start)[:, 0]
        axes.imshow(_tiles(images), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(title, loc="left", fontweight="bold")
        axes.set_axis_off()
    colours = ("#555555", "#56b4e9", "#0072b2", "#d55e00")
    for method, colour in zip(METHODS, colours, strict=True):
        each = [_of(runs, method, steps) for steps in STEPS]
        values, spread = map(statistics.fmean, each), map(statistics.stdev, each)
        calls = [nfe + ("corrected" in method) for nfe in STEPS.values()]
        right.errorbar(
            calls, list(values), list(spread), fmt="o-", color=colour, label=method, capsize=3
        )
    right.set_yscale("log")
    right.set_xticks(list(STEPS.values()))
    right.set_xlabel("NFE: calls of the denoiser per sample")
    right.set_title("Fréchet distance, classifier features", loc="left", fontweight="bold")
    right.grid(alpha=0.3)
    right.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110)


def _tiles(images: torch.Tensor) -> torch.Tensor:
    """Join 64 images into one image of 8x8 tiles, one pixel apart."""
    framed = torch.nn.functional.pad(images.clamp(-1, 1), (0, 1, 0, 1), value=1.0)
    size = framed.shape[-1]
    return framed.reshape(8, 8, size, size).permute(0, 2, 1, 3).reshape(8 * size, 8 * size)


def _commit() -> str:
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, measure, and write the page."""
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
