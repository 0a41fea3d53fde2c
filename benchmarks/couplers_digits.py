"""Measure curvature and Fréchet distance on digits for several couplers and pool sizes.

    OMP_NUM_THREADS=1 python benchmarks/couplers_digits.py --jobs 2

runs the shipped recipe `edm_aot` with each coupler and seed and writes `couplers_digits.json` to
`docs/results`; `couplers.py` writes its page. Finished runs are not repeated. `semidiscrete` requires
the separate distribution `plugins/genkit-semidiscrete`.

The arms of a seed differ only in the coupler and the pool size: network, initial weights, batch size,
number of training images, learning rate and noise distribution are the same. The classifier of the
Fréchet distance is also the same, since it depends only on the seed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

import genkit

RESULTS = Path(__file__).parents[1] / "docs" / "results"
RECIPE = RESULTS.parents[1] / "recipes" / "edm_aot.toml"
RESULT = RESULTS / "couplers_digits.json"
STEPS = [5, 7]  # Heun steps, which take 9 and 13 NFE
SAMPLES = 8192  # twice the number in the recipe; the bias of the distance is about 1
Table = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """A coupler and a pool size.

    Attributes:
        coupler: table of the coupler.
        pool: number of images coupled together.
        before: tables of the stages that the coupler requires.
    """

    coupler: Table
    pool: int
    before: tuple[Table, ...] = ()


ARMS = {
    "random": Arm({"use": "random"}, 256),
    "hungarian-128": Arm({"use": "hungarian"}, 128),
    "hungarian-512": Arm({"use": "hungarian"}, 512),
    "hungarian-1536": Arm({"use": "hungarian"}, 1536),
    "sinkhorn-1536": Arm({"use": "sinkhorn"}, 1536),
    "sinkhorn-4096": Arm({"use": "sinkhorn"}, 4096),
    "semidiscrete": Arm(
        {"use": "semidiscrete", "potential": "potential"},
        512,
        ({"id": "potential", "use": "fit-potential"},),
    ),
}


def recipe(arm: Arm, seed: int) -> Table:
    """Return the shipped recipe with the coupler and the pool size of an arm."""
    table = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    stages = {stage["id"]: stage for stage in table["stage"]}
    stages["denoiser"] |= {"coupler": arm.coupler, "pool_size": arm.pool}
    stages["sweep"] |= {"count": SAMPLES, "vary": {"schedule": {"steps": STEPS}}}
    return table | {"seed": seed, "stage": [*arm.before, *table["stage"]]}


def measure(name: str, seed: int, out: Path) -> Table:
    """Run an arm with a seed and return its scores and facts."""
    arm, folder = ARMS[name], out / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "arm.toml"
    written.write_text(tomli_w.dumps(recipe(arm, seed)), encoding="utf-8")
    run = genkit.run_recipe(written, out=folder / "run", device="cpu")
    (training,) = run.folder.glob("[0-9][0-9]-denoiser")
    rows = [json.loads(line) for line in (training / "metrics.jsonl").read_text().splitlines()]
    pools = [row for row in rows if "pool" in row]
    results = json.loads((run.folder / "results.json").read_text(encoding="utf-8"))
    return {
        "seed": seed,
        "curvature": run.scores["scores"][0]["curvature"],
        "frechet": {row["nfe"]: row["frechet_classifier"] for row in run.scores["sweep"]},
        "reduction": statistics.fmean(row["reduction"] for row in pools),
        "seconds_solving_a_pool": statistics.median(row["seconds_solving"] for row in pools),
        "facts": results["stages"]["sweep"]["facts"],
        "environment": json.loads((run.folder / "environment.json").read_text(encoding="utf-8")),
    }


def summary(name: str, runs: list[Table]) -> Table:
    """Return an arm's scores by seed and their medians."""
    arm, nfes = ARMS[name], sorted(runs[0]["frechet"])
    scores = {
        "curvature": [run["curvature"] for run in runs],
        **{f"frechet_{nfe}": [run["frechet"][nfe] for run in runs] for nfe in nfes},
        "reduction": [run["reduction"] for run in runs],
        "seconds_solving_a_pool": [run["seconds_solving_a_pool"] for run in runs],
    }
    return {
        "name": name,
        "coupler": arm.coupler,
        "pool": arm.pool,
        "by_seed": [
            {"seed": run["seed"]} | {score: values[k] for score, values in scores.items()}
            for k, run in enumerate(runs)
        ],
        "medians": {score: statistics.median(values) for score, values in scores.items()},
    }


def shared_facts(runs: list[Table]) -> Table:
    """Return the facts that are the same for all runs.

    Raises:
        ValueError: arms with the same seed have different classifiers.
    """
    extractors: dict[int, str] = {}
    for run in runs:
        extractor = run["facts"]["extractor"]
        if extractors.setdefault(run["seed"], extractor) != extractor:
            raise ValueError(
                f"runs of seed {run['seed']} must have the same classifier, got {extractor} and "
                f"{extractors[run['seed']]}"
            )
    first = runs[0]
    kept = ("hardware", "cores", "threads", "python", "packages")
    return {
        **{key: first["environment"][key] for key in kept},
        "samples": SAMPLES,
        "reference": first["facts"]["reference"],
        "features": first["facts"]["features"],
        "extractors": {str(seed): extractor for seed, extractor in sorted(extractors.items())},
    }


def commit() -> str:
    """Return the commit of the checkout, with the suffix -dirty if files are modified."""
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, run the arms, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel runs")
    parser.add_argument("--out", type=Path, default=Path("runs/couplers-digits"))
    options = parser.parse_args()
    runs: dict[str, list[Table]] = {name: [] for name in options.arms}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as workers:
        futures = {
            workers.submit(measure, name, seed, options.out): name
            for seed in options.seeds
            for name in options.arms
        }
        for future in as_completed(futures):
            runs[futures[future]].append(result := future.result())
            scores = {k: result[k] for k in ("seed", "curvature", "frechet", "reduction")}
            print(futures[future], json.dumps(scores), flush=True)
    for of_arm in runs.values():
        of_arm.sort(key=lambda run: run["seed"])
    command = (
        f"OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '')} "
        f"python benchmarks/couplers_digits.py --jobs {options.jobs} "
        f"--seeds {' '.join(map(str, options.seeds))} --arms {' '.join(options.arms)}"
    )
    report = {
        "command": command,
        "commit": commit(),
        **shared_facts([run for of_arm in runs.values() for run in of_arm]),
        "seeds": options.seeds,
        "images": tomllib.loads(RECIPE.read_text(encoding="utf-8"))["stage"][0]["images"],
        "arms": [summary(name, of_arm) for name, of_arm in runs.items()],
    }
    RESULT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
