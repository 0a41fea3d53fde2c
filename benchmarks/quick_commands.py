"""Measure commands that do not train or sample, relative to `import torch` in the same rounds.

    python benchmarks/quick_commands.py [--before CHECKOUT]

The minimum of five rounds is reported. A round runs each command once, so that other load affects all
commands equally. CPU seconds, including those of child processes, depend least on other load.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROUNDS = 5
HERE = Path(__file__).parents[1]

RECIPE = """
name = "quick"
data = { use = "digits" }

[[stage]]
id = "denoiser"
use = "train"
network = { use = "mlp" }
objective = { use = "denoising" }
images = 100
"""
MISTAKES = {
    "syntax": ("images = 100", "images = ["),
    "unknown-key": ("images =", "imagess ="),
    "unknown-component": ('"mlp"', '"mlq"'),
    "wrong-type": ("= 100", '= "many"'),
}
GENKIT = ("-m", "genkit")
IMPORT = "import torch"


@dataclass(frozen=True)
class Cost:
    """Seconds of a command: elapsed time, and CPU time of all cores."""

    clock: float
    cores: float


def main() -> None:
    """Measure the commands and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="older checkout that is also measured"
    )
    before = parser.parse_args().before
    trees = {"now": HERE} | ({"before": before.resolve()} if before else {})
    with tempfile.TemporaryDirectory() as folder:
        commands = commands_in(Path(folder))
        costs: dict[tuple[str, str], list[Cost]] = {}
        for _ in range(ROUNDS):
            for name, command in commands.items():
                for tree, source in trees.items():
                    cost = measured(command, source, Path(folder))
                    costs.setdefault((name, tree), []).append(cost)
    heads = [f"{tree}: {what}" for tree in trees for what in ("CPU s", "x import torch", "clock s")]
    print(f"| command | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    for name in commands:
        cells = []
        for tree in trees:
            cores = least_cores(costs[name, tree])
            share = cores / least_cores(costs[IMPORT, tree])
            clock = min(cost.clock for cost in costs[name, tree])
            cells += [f"{cores:.2f}", f"{share:.2f}", f"{clock:.2f}"]
        print(f"| `{name}` | {' | '.join(cells)} |")


def commands_in(folder: Path) -> dict[str, tuple[str, ...]]:
    """Write recipes with mistakes; return a dict from the name of each command to its arguments."""
    commands: dict[str, tuple[str, ...]] = {IMPORT: ("-c", IMPORT)}
    quick = ("--version", "--help", "list-plugins", "show heun")
    commands |= {f"genkit {command}": (*GENKIT, *command.split()) for command in quick}
    for code, (old, new) in MISTAKES.items():
        (folder / f"{code}.toml").write_text(RECIPE.replace(old, new), encoding="utf-8")
        commands[f"genkit validate {code}.toml"] = (*GENKIT, "validate", f"{code}.toml")
    for command in ("validate edm_aot", "validate edm2", "run edm_aot --dry-run"):
        commands[f"genkit {command}"] = (*GENKIT, *command.split())
    return commands


def measured(command: tuple[str, ...], source: Path, folder: Path) -> Cost:
    """Run a command with the code of a checkout, and return its seconds."""
    plugins = source / "plugins"
    places = [source, plugins, *plugins.glob("genkit-*")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    before, begun = cpu_seconds(), time.monotonic()
    subprocess.run(
        [sys.executable, *command], capture_output=True, check=False, cwd=folder, env=environment
    )
    return Cost(time.monotonic() - begun, cpu_seconds() - before)


def cpu_seconds() -> float:
    """Return the CPU seconds of all child processes so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def least_cores(costs: list[Cost]) -> float:
    """Return the CPU seconds of the best round."""
    return min(cost.cores for cost in costs)


if __name__ == "__main__":
    main()
