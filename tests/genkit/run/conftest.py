from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genkit.plugin.manager import Plugins, load_plugins
from genkit.recipe.recipe import Recipe, load_recipe
from genkit.recipe.source import Source
from genkit.run.engine import execute
from genkit.run.progress import Progress

TRAIN = """# A tiny denoiser of two moons.
name = "tiny"
data = { use = "moons", items = 200 }

[[stage]]
id = "denoiser"
use = "train"
images = 256
batch_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
"""

SAMPLE = """
[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 24
batch_size = 16
schedule = { use = "edm", steps = 3 }
"""

SWEEP = """
[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 8
vary.schedule.steps = [2, 3]
vary.schedule.rho = [7.0, 20.0]
metrics = [{ use = "truncation", count = 8, steps = [2], schedule = { use = "edm", steps = 4 } }]
"""


GUIDED = """
[[stage]]
id = "discriminator"
use = "train"
images = 64
batch_size = 64
data = { use = "real-and-fake", fakes = "samples" }
network = { use = "mlp-discriminator", width = 8 }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }

[[stage]]
id = "guided"
use = "sample"
denoiser = "denoiser"
count = 8
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "discriminator" }]
"""


class Recorder(Progress):
    """Notes which stages ran and which were skipped, and calls back at every advance."""

    def __init__(self, at_advance: Callable[[int, int], None] | None = None) -> None:
        self.ran: list[str] = []
        self.skipped: list[str] = []
        self._at_advance = at_advance

    def begin(self, number: int, count: int, stage: str, use: str, resumed: bool = False) -> None:
        self.ran.append(stage)

    def skip(self, number: int, count: int, stage: str) -> None:
        self.skipped.append(stage)

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        if self._at_advance:
            self._at_advance(done, total)


def interrupting(
    when: Callable[[int, int], bool] = lambda done, total: 0 < done < total,
) -> Recorder:
    """Return a progress that sends SIGINT to this process once, as Ctrl-C does."""
    sent: list[int] = []

    def at_advance(done: int, total: int) -> None:
        if when(done, total) and not sent:
            sent.append(done)
            os.kill(os.getpid(), signal.SIGINT)

    return Recorder(at_advance)


class Tiny:
    """Runs tiny recipes in one folder."""

    train, sample, sweep = TRAIN, TRAIN + SAMPLE, TRAIN + SAMPLE + SWEEP
    samples, guided = SAMPLE, GUIDED  # stages below that of a denoiser
    recorder = Recorder
    interrupting = staticmethod(interrupting)

    def __init__(self, folder: Path, plugins: Plugins) -> None:
        self.folder = folder
        self.plugins = plugins

    def load(self, text: str, *overrides: str) -> Recipe:
        return load_recipe(Source.parse(text), self.plugins, overrides)

    def run(
        self,
        text: str,
        *overrides: str,
        progress: Recorder | None = None,
        device: str | None = "cpu",
        folder: Path | None = None,
    ) -> tuple[Recorder, dict[str, Any]]:
        """Run a recipe; return what the progress noted, and the results."""
        progress = progress or Recorder()
        where = folder or self.folder
        return progress, execute(self.load(text, *overrides), self.plugins, where, device, progress)

    def bytes_of(self, name: str, folder: Path | None = None) -> bytes:
        (found,) = (folder or self.folder).glob(f"[0-9][0-9]-*/{name}")
        return found.read_bytes()

    def metrics(self) -> list[dict[str, Any]]:
        """Return the rows that the only train stage logged."""
        return [json.loads(line) for line in self.bytes_of("metrics.jsonl").splitlines()]


@pytest.fixture(scope="session")
def plugins() -> Plugins:
    return load_plugins()


@pytest.fixture
def tiny(tmp_path: Path, plugins: Plugins) -> Tiny:
    return Tiny(tmp_path / "run", plugins)


@pytest.fixture(autouse=True)
def _coarse_pictures(coarse_pictures: None) -> None:
    """Draw the pictures of all runs coarsely."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, plugins: Plugins) -> Path:
    """The folder of a finished run of ``Tiny.sample``, to be copied."""
    tiny = Tiny(tmp_path_factory.mktemp("trained") / "run", plugins)
    tiny.run(Tiny.sample)
    return tiny.folder
