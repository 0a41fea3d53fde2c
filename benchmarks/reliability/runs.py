"""Run commands of genkit in forked processes, with faults, on a run that takes less than a second."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from disk import Disk, Operation
from genkit import commands
from genkit.artifacts.layout import RESULTS, results_in, stage_folders
from genkit.cli import main
from genkit.costs import CostMeter
from genkit.plugin import manager

T = TypeVar("T")

RECIPE = """\
name = "faults"
data = { use = "image-folder", root = "images" }

[[stage]]
id = "denoiser"
use = "train"
images = 96
batch_size = 32
pool_size = 32
checkpoint_seconds = 0
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }
average = { use = "power-ema", snapshot_images = 48 }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 16
batch_size = 8
schedule = { use = "edm", steps = 2 }

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "frechet", extractor = { use = "pixels" } }]

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 8
vary.schedule.steps = [2, 3]
metrics = [{ use = "truncation", count = 8, steps = [2], schedule = { use = "edm", steps = 3 } }]
"""

SECONDS = 120
"""Time limit of a command, which takes less than a second on an idle machine."""


@dataclass(frozen=True)
class Outcome:
    """The end of a command.

    Attributes:
        code: exit code; minus the signal that ended the process.
        out: standard output.
        err: standard error.
        operations: file operations, if they were recorded.
    """

    code: int
    out: str
    err: str
    operations: Sequence[Operation] = ()

    @property
    def raised(self) -> bool:
        """Whether the command printed a traceback, or ended by a signal that was not sent to it."""
        return "Traceback" in self.err or self.code in (1, -signal.SIGSEGV, -signal.SIGABRT)

    @property
    def refused(self) -> bool:
        """Whether the command ended with one error message."""
        return self.code in (2, 4) and self.err.count("Error: ") == 1 and not self.raised


class Place:
    """A folder with a recipe and its data, in which commands run.

    Args:
        folder: new folder, which becomes the working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "images").mkdir(parents=True)
        os.chdir(folder)
        os.environ |= {"XDG_CACHE_HOME": str(folder / "cache"), "GENKIT_DISABLE_PLUGINS": ""}
        Path("recipe.toml").write_text(RECIPE)
        rng = np.random.default_rng(0)
        for number in range(32):
            pixels = rng.integers(0, 256, (4, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(f"images/{number:02d}.png")
        _hasten()
        # What is imported and warmed up here is not repeated in each process.
        self._require(self.call(*self.command("warm"), fork=False))
        self.clean("warm")
        self._require(self.run("whole"))
        self.wanted = contents("whole")

    @staticmethod
    def _require(outcome: Outcome) -> None:
        if outcome.code:
            raise RuntimeError(f"a run without faults must end with exit code 0: {outcome}")

    @staticmethod
    def command(out: str, *settings: str) -> Sequence[str]:
        """Return the arguments of a run of the recipe in a folder."""
        changed = (argument for setting in settings for argument in ("--set", setting))
        return "run", "recipe.toml", "--out", out, "--device", "cpu", *changed

    def run(self, out: str, disk: Disk | None = None) -> Outcome:
        """Run the recipe in a folder."""
        return self.call(*self.command(out), disk=disk)

    def call(self, *arguments: str, disk: Disk | None = None, fork: bool = True) -> Outcome:
        """Call the command line and wait for its end."""
        return self.end(self.start(*arguments, disk=disk)) if fork else _call(arguments, disk)

    def start(self, *arguments: str, disk: Disk | None = None) -> tuple[int, Path]:
        """Start a command in a process of its own; return its id and the folder of its outputs."""
        outputs = self.folder / "outputs" / f"{time.monotonic_ns()}"
        outputs.mkdir(parents=True)
        if process := os.fork():
            return process, outputs
        status = 1
        try:
            for number, name in ((0, os.devnull), (1, outputs / "out"), (2, outputs / "err")):
                flags = os.O_RDWR | os.O_CREAT
                os.dup2(os.open(name, flags, 0o644), number)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.alarm(SECONDS)
            status = _call(arguments, disk).code
            if disk is not None:
                (outputs / "operations").write_text(json.dumps(disk.operations))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def end(self, started: tuple[int, Path]) -> Outcome:
        """Wait for the end of a command."""
        process, outputs = started
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        texts = [(outputs / name).read_text(errors="replace") for name in ("out", "err")]
        listed = outputs / "operations"
        operations = json.loads(listed.read_text()) if listed.exists() else []
        shutil.rmtree(outputs)
        return Outcome(code, *texts, [Operation(*operation) for operation in operations])

    def clean(self, *names: str) -> None:
        """Remove folders and files."""
        for name in names:
            path = self.folder / name
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def contents(run: str | Path) -> dict[str, str]:
    """Return a map from the path of each result of a run to its SHA-256."""
    paths = [folder / name for _, folder in stage_folders(Path(run)) for name in results_in(folder)]
    paths += [path for path in [Path(run) / RESULTS] if path.exists()]
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def _call(arguments: Sequence[str], disk: Disk | None) -> Outcome:
    try:
        with disk.injected() if disk else nullcontext():
            main(arguments)
    except SystemExit as end:
        return Outcome(end.code if isinstance(end.code, int) else int(bool(end.code)), "", "")
    except BaseException:  # noqa: BLE001  (the traceback is what is counted)
        traceback.print_exc()
        return Outcome(1, "", "")
    return Outcome(0, "", "")


def _hasten() -> None:
    """Load plugins once, draw no plots, count no arithmetic, and write no report after a run."""

    def save(_: Figure, file: IO[Any], **options: Any) -> None:
        if options.get("format", "png") == "png":
            Image.new("RGB", (64, 64)).save(file, format="png")
        else:
            file.write("<svg></svg>")

    Figure.savefig = save
    CostMeter._counted = lambda _: None
    commands.run._after_run = lambda *_: None
    manager.load_plugins = functools.cache(manager.load_plugins)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return ``count`` items at equal distances, some several times if there are fewer."""
    return [items[k * len(items) // count] for k in range(count)]


@dataclass
class Tally:
    """Counts of cases, and descriptions of those that failed.

    Attributes:
        counts: map from what happened to the number of cases.
        failures: description of each case that must not happen.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, *names: str) -> None:
        """Count a case under several names."""
        self.counts.update(names)

    def require(self, holds: bool, case: str, outcome: Outcome) -> bool:
        """Record a failure unless a condition holds."""
        if outcome.raised:
            self.counts["tracebacks"] += 1
        if not holds or outcome.raised:
            last = outcome.err.strip().splitlines()[-1:]
            self.failures.append(f"{case}: exit code {outcome.code}: {' '.join(last)}")
        return holds
