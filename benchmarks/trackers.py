"""Compare the time of a run with trackers and the time of the same run without trackers.

    python benchmarks/trackers.py --rounds 5

The runs alternate in separate processes, whose whole time is measured, including start-up. Each run is
divided by the run without trackers in the same round, and the median of the ratios is printed. At the
first row, the faulty trackers `raiser`, `sleeper` and `filler` respectively raise an error, sleep
forever, and write to a full disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FAULTY = """
import time
from dataclasses import dataclass

from genkit.plugin import BoundTracker, Tracker, hookimpl


def raises():
    raise ValueError("not today")


def sleeps():
    time.sleep(10**6)


def fills():
    with open("/dev/full", "w") as file:
        file.write("x")


class Bound(BoundTracker):
    def __init__(self, fault):
        self.row = lambda stage, row: fault()

    def row(self, stage, row): ...
    def scores(self, stage, scores): ...
    def picture(self, stage, name, png): ...


class Raiser(Tracker):
    def open(self, run):
        return Bound(raises)


class Sleeper(Tracker):
    def open(self, run):
        return Bound(sleeps)


class Filler(Tracker):
    def open(self, run):
        return Bound(fills)


@hookimpl
def genkit_register(registry):
    for name in ("raiser", "sleeper", "filler"):
        registry.add("tracker", name, f"genkit_faulty:{name.title()}")
"""
CONTENDERS = (
    (),
    ("raiser",),
    ("sleeper",),
    ("filler",),
    ("csv",),
    ("tensorboard",),
    ("wandb",),
)


def install(site: Path) -> None:
    """Write a Python package with the faulty trackers, and its metadata, to a folder on ``sys.path``."""
    info = site / "genkit_faulty-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: genkit-faulty\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[genkit.plugins]\nfaulty = genkit_faulty\n")
    (site / "genkit_faulty.py").write_text(FAULTY)


def seconds(trackers: tuple[str, ...], images: int, site: Path) -> float:
    """Return the seconds of a run in a separate folder."""
    command = [sys.executable, "-m", "genkit", "run", "smoke", "--device", "cpu"]
    command += ["--set", f"denoiser.images={images}"]
    command += [part for name in trackers for part in ("--track", name)]
    env = {**os.environ, "PYTHONPATH": str(site), "WANDB_MODE": "offline"}
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        done = subprocess.run(
            [*command, "--out", f"{folder}/run"],
            env=env,
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        elapsed = time.perf_counter() - begun
    warnings = done.stderr.count("Warning: tracker")
    faulty = sum(name in ("raiser", "sleeper", "filler") for name in trackers)
    if warnings != faulty:
        raise RuntimeError(
            f"stderr must have {faulty} tracker warnings, got {warnings}:\n{done.stderr}"
        )
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=400_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder)
        install(site)
        rounds = []
        for number in range(options.rounds):
            # The order rotates, so that no set of trackers is always first.
            order = CONTENDERS[number % len(CONTENDERS) :] + CONTENDERS[: number % len(CONTENDERS)]
            rounds.append({})
            for who in order:
                rounds[-1][who] = seconds(who, options.images, site)
                name = "+".join(who) or "without"
                print(f"round {number + 1}: {name} {rounds[-1][who]:.2f} s", file=sys.stderr)
    print(f"without trackers: {statistics.median(r[()] for r in rounds):.2f} s")
    for who in CONTENDERS[1:]:
        ratios = sorted(r[who] / r[()] for r in rounds)
        print(
            f"{'+'.join(who):<12} {statistics.median(ratios):.3f} of that "
            f"(from {ratios[0]:.3f} to {ratios[-1]:.3f})"
        )


if __name__ == "__main__":
    main()
