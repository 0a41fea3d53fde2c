"""Compare genkit's couplers with torchcfm's OTPlanSampler, on the same pools in the same run.

    nox -s torchcfm

installs torchcfm in a separate environment, runs this script there, prints a table and writes
`docs/results/couplers_torchcfm.json`. The measured time is that of one call in a
training loop, from images and noise to pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torchcfm.optimal_transport import OTPlanSampler

from genkit.machine import environment
from genkit.plugin.manager import load_plugins
from genkit.random import derive_seed, generator
from genkit.recipe.decode import component
from genkit.tensors import pairwise_cost
from genkit.types import Batch
from genkit_bench.pools import Pools
from genkit_bench.synthetic import synthetic

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SHAPE, CLASSES = (3, 32, 32), 10
EQUAL = 1 + 1e-6
"""Maximum ratio of costs that count as equal, since torchcfm computes in float32."""

GENKIT = (
    {"use": "hungarian", "cost": "squared"},
    {"use": "sinkhorn", "cost": "squared", "rounded": True},
)
TORCHCFM: tuple[tuple[str, dict[str, Any], dict[str, Any]], ...] = (
    ("exact", {}, {}),
    ("exact", {}, {"replace": False}),
    ("sinkhorn", {}, {}),
    ("sinkhorn", {"normalize_cost": True}, {}),
    # The smallest reg that works here: at 0.008 and below, exp(-cost / reg) is 0 in float32.
    ("sinkhorn", {"normalize_cost": True, "reg": 0.01}, {}),
)
"""Method of OTPlanSampler, its other arguments, and the arguments of ``sample_plan``."""

RIVALS = {"hungarian": "exact", "sinkhorn": "sinkhorn"}
"""Dict from each coupler of genkit to torchcfm's methods of the same type."""

UNIFORM_PLAN = "reverting to uniform plan"
"""Part of torchcfm's warning that it replaced a plan that is 0 everywhere by random pairs."""

NOT_CONVERGED = "numItermax reached"
"""Part of POT's warning that the plan is not optimal."""

LOSSES = ("dropped_images", "dropped_noises", "doubled_images", "doubled_noises")
"""Columns: numbers of images and noise samples that are not used, and used more than once."""

MEANS = ("cost", "expected_cost", "random_cost", *LOSSES)
"""Columns of a row that are means over the pools."""


@dataclass(frozen=True)
class Drawn:
    """Pairs of a pool, in order, and the transport plan if the method has one."""

    seconds: float
    images: Tensor
    noises: Tensor
    plan: np.ndarray[Any, Any] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Method:
    """A method of genkit or torchcfm."""

    library: str
    name: str
    settings: dict[str, Any]
    draw: Callable[[Tensor, Tensor, int], Drawn]

    def described(self) -> dict[str, Any]:
        """Return the columns that identify the method."""
        settings = ", ".join(f"{key}={value}" for key, value in self.settings.items())
        return {
            "library": self.library,
            "method": self.name,
            "settings": self.settings,
            "label": f"{self.library} {self.name}" + (f" ({settings})" if settings else ""),
        }


class Recorded(OTPlanSampler):  # type: ignore[misc]
    """torchcfm's sampler, which also stores its plan and the drawn indices."""

    plan: Any = None
    drawn: Any = None

    def get_map(self, *args: Any) -> Any:
        """Return the plan."""
        self.plan = super().get_map(*args)
        return self.plan

    def sample_map(self, *args: Any, **kwargs: Any) -> Any:
        """Return the indices."""
        self.drawn = super().sample_map(*args, **kwargs)
        return self.drawn


def of_genkit(coupler: Any, table: dict[str, Any]) -> Method:
    """Return the method for a coupler of genkit."""

    def draw(images: Tensor, noise: Tensor, index: int) -> Drawn:
        start = time.perf_counter()
        pairs = coupler.pair(Batch(images), noise, generator(0, "torchcfm", index))
        _ = images[pairs.data], noise[pairs.noise]
        return Drawn(time.perf_counter() - start, pairs.data, pairs.noise)

    return Method("genkit", table["use"], {k: table[k] for k in table if k != "use"}, draw)


def of_torchcfm(name: str, arguments: dict[str, Any], plan_arguments: dict[str, Any]) -> Method:
    """Return a method of OTPlanSampler."""

    def draw(images: Tensor, noise: Tensor, index: int) -> Drawn:
        sampler = Recorded(name, **arguments)
        # The sampler draws pairs with numpy's global generator.
        np.random.seed(derive_seed(0, "torchcfm", index) % 2**32)  # noqa: NPY002
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            start = time.perf_counter()
            sampler.sample_plan(noise, images, **plan_arguments)
            seconds = time.perf_counter() - start
        texts = tuple(dict.fromkeys(str(w.message).splitlines()[0] for w in caught))
        noise_indices, image_indices = (torch.as_tensor(i) for i in sampler.drawn)
        return Drawn(seconds, image_indices, noise_indices, sampler.plan.T, texts)

    return Method("torchcfm", name, {**arguments, **plan_arguments}, draw)


def pool_row(drawn: Drawn, cost: Tensor) -> dict[str, Any]:
    """Return the row of one pool.

    Args:
        drawn: pairs that the method returned.
        cost: squared distances, with a row for each image, ``[N, N]`` float64.
    """
    size = len(cost)
    mean_cost = float(cost[drawn.images, drawn.noises].mean())
    plan = drawn.plan
    expected = mean_cost if plan is None else float((plan * cost.numpy()).sum() / plan.sum())
    uses = {
        "images": torch.bincount(drawn.images, minlength=size),
        "noises": torch.bincount(drawn.noises, minlength=size),
    }
    return {
        "seconds": drawn.seconds,
        "cost": mean_cost,
        "expected_cost": expected,
        "random_cost": float(cost.mean()),
        **{f"dropped_{name}": int((count == 0).sum()) for name, count in uses.items()},
        **{f"doubled_{name}": int((count > 1).sum()) for name, count in uses.items()},
        "warnings": list(drawn.warnings),
    }


def measure(
    methods: Sequence[Method], pools: Pools, size: int, repeats: int
) -> list[dict[str, Any]]:
    """Return a row for each method; each pool is measured with all methods in turn."""
    by_method: list[list[dict[str, Any]]] = [[] for _ in methods]
    for index in range(repeats):
        images, noise = pools.batch(size, index).data, pools.noise(size, index)
        cost = pairwise_cost(images.double(), noise.double(), "squared")
        for rows, method in zip(by_method, methods, strict=True):
            rows.append(pool_row(method.draw(images, noise, index), cost))
    return [
        {
            **method.described(),
            "size": size,
            "seconds": statistics.median(row["seconds"] for row in rows),
            **{key: statistics.mean(row[key] for row in rows) for key in MEANS},
            "fell_back": any(UNIFORM_PLAN in text for row in rows for text in row["warnings"]),
            "stopped": any(NOT_CONVERGED in text for row in rows for text in row["warnings"]),
            "pools": rows,
        }
        for rows, method in zip(by_method, methods, strict=True)
    ]


def verdicts(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compare each coupler of genkit with torchcfm's methods of the same type, for each size."""
    return [
        {
            "size": mine["size"],
            "genkit": mine["label"],
            "torchcfm": rival["label"],
            "speedup": rival["seconds"] / mine["seconds"],
            "cost_ratio": max(_ratios(mine, rival)),
            "faster": mine["seconds"] < rival["seconds"],
            "equal_or_lower_cost": max(_ratios(mine, rival)) <= EQUAL,
            "each_once": not any(mine[key] for key in LOSSES),
            "fell_back": rival["fell_back"],
        }
        for mine in rows
        for rival in rows
        if (mine["library"], rival["library"]) == ("genkit", "torchcfm")
        and rival["size"] == mine["size"]
        and rival["method"] == RIVALS[mine["method"]]
    ]


def _ratios(mine: dict[str, Any], rival: dict[str, Any]) -> list[float]:
    """Return for each pool the cost of genkit's pairs divided by the expected cost of the rival's plan.

    The cost of the rival's drawn pairs is not used, since draws with replacement are random.
    """
    pools = zip(mine["pools"], rival["pools"], strict=True)
    return [own["cost"] / other["expected_cost"] for own, other in pools]


def line_of(row: dict[str, Any]) -> str:
    """Return a row as a line of text."""
    note = "failed: random pairs" if row["fell_back"] else ""
    return (
        f"{row['size']:>5}  {row['label']:<50}{1e3 * row['seconds']:>8,.0f} ms, "
        f"cost {row['cost']:,.1f}, expected cost of the plan {row['expected_cost']:,.1f}, "
        f"{row['dropped_images'] / row['size']:.0%} of the images not used  "
        f"{'stopped before the optimum' if row['stopped'] else note}"
    )


def images_of(path: Path | None, largest: int, seed: int) -> tuple[str, Batch]:
    """Return a description of the images of the pools, and the images."""
    if path is None:
        name = f"synthetic, genkit_bench.synthetic.synthetic({SHAPE}, {CLASSES}, {largest}, {seed})"
        return name, synthetic(SHAPE, CLASSES, largest, seed)
    values = safetensors.torch.load_file(path)["train_images"]
    return f"{path.name}, {len(values)} images", Batch(values.float() / 127.5 - 1)


def commit() -> str:
    """Return the commit of the checkout."""
    run = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    return subprocess.run(
        run, cwd=RESULTS, capture_output=True, text=True, check=True
    ).stdout.strip()


def main() -> None:
    """Parse the command line, measure, and print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=5, help="number of pools of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--data", type=Path, help="safetensors file with uint8 train_images [N, 3, 32, 32]"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "couplers_torchcfm.json")
    options = parser.parse_args()
    plugins = load_plugins()
    name, data = images_of(options.data, max(options.sizes), options.seed)
    pools = Pools(data, options.seed, torch.device("cpu"))
    couplers = [component(plugins.registry, "coupler", table) for table in GENKIT]
    methods = [of_genkit(*pair) for pair in zip(couplers, GENKIT, strict=True)]
    methods += [of_torchcfm(*arguments) for arguments in TORCHCFM]
    measure(methods, pools, 64, 1)  # warm-up, since the first calls import modules
    rows: list[dict[str, Any]] = []
    for size in options.sizes:
        rows += measure(methods, pools, size, options.repeats)
        print(*map(line_of, rows[-len(methods) :]), sep="\n", flush=True)
    where = environment(pools.device, plugins)
    where["packages"]["torchcfm"] = version("torchcfm")
    sizes = " ".join(map(str, options.sizes))
    report = {
        "command": f"nox -s torchcfm -- --sizes {sizes} --repeats {options.repeats}",
        "commit": commit(),
        "environment": {key: value for key, value in where.items() if key != "command"},
        "data": name,
        "dimensions": data.data[0].numel(),
        "seed": options.seed,
        "repeats": options.repeats,
        "rows": rows,
        "verdicts": verdicts(rows),
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for verdict in report["verdicts"]:
        better = all(verdict[key] for key in ("faster", "equal_or_lower_cost", "each_once"))
        print(
            f"{verdict['size']:>5}  {verdict['genkit']} against {verdict['torchcfm']}: "
            f"{verdict['speedup']:.2f} times as fast, cost ratio {verdict['cost_ratio']:.6f}"
            f"{'' if better else '  NOT REACHED'}"
        )


if __name__ == "__main__":
    main()
