"""Measure time, memory and cost reduction of couplers, and write the page of results.

    python benchmarks/couplers.py speed
    python benchmarks/couplers.py sinkhorn
    python benchmarks/couplers.py growth
    python benchmarks/couplers.py waiting
    python benchmarks/couplers.py page

All commands but `page` measure with `genkit_bench` and write `couplers/NAME.json` to `docs/results`.
`page` writes `couplers.md` and its picture from all available measurements, including those of
`couplers_torchcfm.py` and `couplers_digits.py`. `--images FILE` uses real images, such as CIFAR-10:
a safetensors file with uint8 `train_images` [N, 3, 32, 32].
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors.torch
import tomli_w
import torch
from couplers_page import write_page

import genkit
from genkit.machine import resident, resolve_device
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Registry
from genkit.recipe.source import read_source
from genkit.types import Batch
from genkit_bench.candidates import Candidate, all_candidates, chosen_candidates, name_of
from genkit_bench.couplers import Limits, measure_couplers
from genkit_bench.measure import cost_at_random, cost_of, solve
from genkit_bench.pools import Pools, complete
from genkit_bench.synthetic import synthetic
from genkit_bench.tables import couplers_report

RESULTS = Path(__file__).parents[1] / "docs" / "results"
PARTS = RESULTS / "couplers"
SHAPE, CLASSES = (3, 32, 32), 10
SINKHORN = ({"use": "sinkhorn"}, {"use": "sinkhorn", "rounded": True})
SMALL, LARGE = 4096, 16_384
Table = dict[str, Any]
Choose = Callable[[Registry, Pools], list[Candidate]]


def speed(options: argparse.Namespace) -> None:
    """Measure `hungarian` for both costs; the reference is plain scipy."""
    tables = [{"use": "hungarian", "cost": cost} for cost in ("euclidean", "squared")]
    limits = Limits(options.repeats, seconds=1e4, reference=max(options.sizes))
    write("speed", measure(options, options.sizes, limits, select(tables)))


def sinkhorn(options: argparse.Namespace) -> None:
    """Measure `sinkhorn` on a pool with a known optimum, then on a large pool in a new process."""
    small, large = min(options.sizes), max(options.sizes)
    limits = Limits(options.repeats, seconds=1e4, reference=small)
    report = measure(options, [small], limits, select(SINKHORN))
    report["alone"] = []
    for table in SINKHORN:
        log(f"pool {large:,}, in a separate process: {name_of(table)}")
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            report["alone"].append(process.submit(measure_alone, options, table, large).result())
    write("sinkhorn", report)


def measure_alone(options: argparse.Namespace, table: Table, size: int) -> Table:
    """Measure a coupler on one pool, and the peak memory of the whole process."""
    pools, _ = pools_of(options, size)
    settings = {key: value for key, value in table.items() if key != "use"}
    coupler = genkit.component("coupler", table["use"], **settings)
    solve(pools, coupler, 32, 1)  # warm-up, which imports modules
    before = resident("VmHWM") or 0
    solved = solve(pools, coupler, size, 0)
    return {
        "coupler": name_of(table),
        "pool": size,
        **asdict(solved),
        "random_cost": cost_at_random(pools, cost_of(coupler), size, 0),
        "process_bytes": max(before, resident("VmHWM") or 0),
    }


def growth(options: argparse.Namespace) -> None:
    """Measure every coupler on pools of increasing size."""
    limits = Limits(options.repeats, options.limit, reference=max(options.sizes))
    write("growth", measure(options, options.sizes, limits, all_couplers))


def all_couplers(registry: Registry, pools: Pools) -> list[Candidate]:
    """Return each registered coupler, including `conditional` for embeddings and `semidiscrete`.

    A semidiscrete coupler requires a potential. The time does not depend on the values of the
    potential, so it is filled with zeros.
    """
    candidates = all_candidates(registry, pools.device)
    if find_spec("genkit_semidiscrete"):
        from genkit_semidiscrete.coupler import BoundSemidiscrete, Semidiscrete
        from genkit_semidiscrete.potential import Potential, describe

        data, zeros = pools.data.data, torch.zeros(len(pools.data))
        fitted = Potential(describe(pools.data, ()), zeros, tuple(data.shape[1:]), ())
        coupler, bound = Semidiscrete(potential="zeros"), BoundSemidiscrete(fitted)
        candidates = [c for c in candidates if c.name != "semidiscrete"]
        candidates.append(Candidate("semidiscrete(potential=zeros)", coupler, bound))
    embeddings = {"use": "conditional", "by": "embedding"}
    return [*candidates, *chosen_candidates(registry, [embeddings], pools.device)]


def select(tables: Sequence[Table]) -> Choose:
    """Return a function that creates the couplers of these tables."""
    return lambda registry, pools: chosen_candidates(registry, tables, pools.device)


def measure(
    options: argparse.Namespace, sizes: Sequence[int], limits: Limits, choose: Choose
) -> Table:
    """Return the report of `genkit bench` for the selected couplers."""
    pools, data = pools_of(options, max(sizes))
    plugins = load_plugins()
    candidates = choose(plugins.registry, pools)
    rows = list(measure_couplers(candidates, pools, sorted(sizes), limits, log))
    return couplers_report(rows, pools, limits, plugins, data)


def pools_of(options: argparse.Namespace, largest: int) -> tuple[Pools, str]:
    """Return pools of real or synthetic images, and the name of the images."""
    if options.images is None:
        count, name = max(2048, largest), "synthetic images"
        items = synthetic(SHAPE, CLASSES, count, options.seed)
    else:
        stored = safetensors.torch.load_file(options.images)
        images = stored["train_images"].float() / 127.5 - 1
        items, name = Batch(images, stored["train_labels"].long()), options.images.stem
    return Pools(complete(items, options.seed), options.seed, resolve_device(options.device)), name


def waiting(options: argparse.Namespace) -> None:
    """Measure how long training waits for pairs, in a new run or in a finished one."""
    if options.run:
        write("waiting", read_waiting(options.run, options.stage))
        return
    with tempfile.TemporaryDirectory() as folder:
        write("waiting", read_waiting(train_stage(options, Path(folder)), options.stage))


def read_waiting(folder: Path, stage: str) -> Table:
    """Return how long a stage of a run waited for pairs."""
    (place,) = folder.glob(f"[0-9][0-9]-{stage}")
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    pools, steps = [r for r in rows if "pool" in r], [r for r in rows if "loss" in r]
    before = [0, *(row["images"] for row in steps)]
    seconds = sum(
        (row["images"] - since) / row["images_per_second"]
        for since, row in zip(before, steps, strict=False)
    )
    waited = sum(row["seconds_waited_for_pairs"] for row in steps)
    recipe = tomllib.loads((folder / "resolved.toml").read_text(encoding="utf-8"))
    settings = next(table for table in recipe["stage"] if table["id"] == stage)
    where = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return {
        "recipe": recipe["name"],
        "pool": settings.get("pool_size") or settings["batch_size"],
        "coupler": name_of({"use": settings["coupler"]["use"]}),
        "images": steps[-1]["images"],
        "pools": len(pools),
        "seconds_training": seconds,
        "seconds_waited": waited,
        "share": waited / seconds,
        "seconds_solving": sorted(row["seconds_solving"] for row in pools)[len(pools) // 2],
        "seed": recipe["seed"],
        "environment": where,
    }


def train_stage(options: argparse.Namespace, folder: Path) -> Path:
    """Run a single stage of a recipe and return the folder of the run."""
    table = dict(read_source(options.recipe).table)
    table["stage"] = [stage for stage in table["stage"] if stage["id"] == options.stage]
    written = folder / "alone.toml"
    written.write_text(tomli_w.dumps(table), encoding="utf-8")
    settings = {f"{options.stage}.images": options.count} if options.count else {}
    run = genkit.run_recipe(
        written, out=folder / "run", settings=settings, device=options.device, progress=True
    )
    return run.folder


def write(name: str, report: Table) -> None:
    """Write a measurement to a file, whose name depends on the type of device."""
    on_gpu = report["environment"]["device"].startswith("cuda")
    path = PARTS / f"{name}{'_cuda' if on_gpu else ''}.json"
    where = dict(report["environment"])
    del where["command"]  # contains paths on this machine
    whole = {"command": command(), "commit": commit(), **report, "environment": where}
    PARTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    log(f"wrote {path}")


def command() -> str:
    """Return the command line, with files but without their folders."""
    arguments = [Path(part).name if "/" in part else part for part in sys.argv[1:]]
    threads = f"OMP_NUM_THREADS={torch.get_num_threads()}"
    return " ".join([threads, "python benchmarks/couplers.py", *arguments])


def commit() -> str:
    """Return the commit of the checkout, with the suffix -dirty if files are modified."""
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def log(text: str) -> None:
    """Print progress to stderr."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Parse the command line, then measure or write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    sizes = {
        speed: [512, 1024, 2048, 4096],
        sinkhorn: [SMALL, LARGE],
        growth: [2**k for k in range(8, 15)],
    }
    for part, default in sizes.items():
        parsed = parts.add_parser(part.__name__, help=part.__doc__)
        parsed.set_defaults(act=part)
        parsed.add_argument("--sizes", type=int, nargs="+", default=default)
        parsed.add_argument("--repeats", type=int, default=3, help="number of pools of each size")
        parsed.add_argument("--images", type=Path, help="file of real images; default: synthetic")
        parsed.add_argument("--device", default="cpu")
        parsed.add_argument("--seed", type=int, default=0)
        if part is growth:
            parsed.add_argument(
                "--limit", type=float, default=60.0, help="maximum seconds for a pool"
            )
    parsed = parts.add_parser("waiting", help=waiting.__doc__)
    parsed.set_defaults(act=waiting)
    parsed.add_argument("--recipe", default="edm_aot")
    parsed.add_argument("--stage", default="denoiser")
    parsed.add_argument(
        "--count", type=int, help="number of training images; by default that of the recipe"
    )
    parsed.add_argument("--run", type=Path, help="finished run, instead of a new one")
    parsed.add_argument("--device", default="cpu")
    parts.add_parser("page", help="write couplers.md").set_defaults(act=write_page)
    options = parser.parse_args()
    options.act(options)


if __name__ == "__main__":
    main()
