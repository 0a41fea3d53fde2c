"""Compare pairs, training steps and samples per second of two installations of genkit, in one run.

    python benchmarks/hot_paths.py BEFORE/bin/python AFTER/bin/python [--rounds 12]

Each installation runs parts of the recipe `edm_aot` with two numbers of images. The difference of the
CPU seconds is the cost of the additional images, without start-up. The installations alternate, so that
other load affects both, and ratios are computed within a round. Each uses one thread.

- pairs: the network is so small that the coupler takes nearly all of the time
- steps: the network of the recipe, with random pairs
- samples: only the stage `sample`; the network is trained before
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import tempfile
from pathlib import Path

TINY = ("denoiser.network.width=8", "denoiser.network.blocks=1", "denoiser.batch_size=512")
TRAINING = "denoiser.images"
DRAWING = "samples.count"
# The key that is varied, its two values, and the other settings.
WORK = {
    "pairs": (TRAINING, 2_048, 409_600, TINY),
    # Both numbers include work that is done once, such as statistics of the first 8,192 pairs.
    "steps": (TRAINING, 12_800, 128_000, ('denoiser.coupler={use="random"}',)),
    # With assigned noise, newer versions start from a corrected state, which takes network calls.
    "samples": (DRAWING, 256, 16_384, ("denoiser.images=2560", 'denoiser.coupler={use="random"}')),
}


def main() -> None:
    """Run the comparison and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    # Paths are not resolved, since the link to Python selects the virtual environment.
    parser.add_argument("before", type=lambda path: Path(path).absolute())
    parser.add_argument("after", type=lambda path: Path(path).absolute())
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK))
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread each")
    for name in options.only:
        what, low, high, settings = WORK[name]
        ratios, rates = [], []
        for turn in range(options.rounds):
            pair = (options.before, options.after)
            order = pair if turn % 2 == 0 else pair[::-1]
            seconds = {python: cost(python, what, low, high, settings) for python in order}
            ratios.append(seconds[options.before] / seconds[options.after])
            rates.append((high - low) / seconds[options.after])
        row = {
            "work": name,
            "per_cpu_second": round(statistics.median(rates), 1),
            "after_over_before": round(statistics.median(ratios), 4),
            "quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)],
            "rounds": options.rounds,
        }
        print(json.dumps(row), flush=True)


def cost(python: Path, what: str, low: int, high: int, settings: tuple[str, ...]) -> float:
    """Return the CPU seconds for the work that ``high`` images take in addition to ``low`` images."""
    with tempfile.TemporaryDirectory() as folder:
        return run(python, what, high, settings, folder) - run(python, what, low, settings, folder)


def run(python: Path, what: str, size: int, settings: tuple[str, ...], folder: str) -> float:
    """Return the CPU seconds of a run; for samples, without those of training."""
    recipe = Path(folder) / "recipe.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    out = Path(folder) / (f"{what}-{size}" if what == TRAINING else "samples")
    sets = [*settings, f"{what}={size}"]
    command = [
        str(python),
        "-m",
        "genkit",
        "run",
        str(recipe),
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    command += [part for setting in sets for part in ("--set", setting)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    if what == DRAWING:  # the network is trained first, so that the timed run only draws samples
        once = [*command, "--set", f"{DRAWING}=1"]
        subprocess.run(once, env=env, cwd=folder, check=True, capture_output=True)
    before = children()
    # In a folder outside of the checkout, whose modules would shadow the installed ones.
    subprocess.run(command, env=env, cwd=folder, check=True, capture_output=True)
    return children() - before


def children() -> float:
    """Return the CPU seconds of all finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


RECIPE = """
name = "hot-paths"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
images = 2560
batch_size = 256
pool_size = 512
network = { use = "mlp" }
objective = { use = "denoising" }
coupler = { use = "hungarian" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 1
schedule = { use = "edm", steps = 7 }
"""


if __name__ == "__main__":
    main()
