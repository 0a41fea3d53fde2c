"""A run that is killed at any moment, and run again, leaves the bytes of one that never stopped."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RECIPE = """
name = "resumed"
data = { use = "moons", items = 500 }

[[stage]]
id = "denoiser"
use = "train"
images = 5_000
batch_size = 96
pool_size = 128
network = { use = "mlp", width = 16, blocks = 1, dropout = 0.1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }
callbacks = [
    { use = "preview", every = 2_500, count = 4, schedule = { use = "edm", steps = 2 } },
    { use = "score", every = 300, count = 16, schedule = { use = "edm", steps = 2 }, metrics = [
        { use = "frechet" },
    ] },
]

[[stage]]
id = "fakes"
use = "sample"
denoiser = "denoiser"
count = 800
batch_size = 100

[[stage]]
id = "discriminator"
use = "train"
images = 5_000
batch_size = 96
pool_size = 128
data = { use = "real-and-fake", fakes = "fakes", held_out = 0.2 }
network = { use = "mlp-discriminator", width = 16, blocks = 1 }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }
average = { use = "ema", half_life = 500, snapshot_images = 2_500 }

[[stage]]
id = "chosen"
use = "choose-discriminator"
discriminator = "discriminator"
count = 512

[[stage]]
id = "weight"
use = "fit-weight"
discriminator = "chosen"
denoiser = "denoiser"
count = 64
schedule = { use = "edm", steps = 3 }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 800
batch_size = 100
solver = { use = "heun", s_churn = 10 }
guidance = [{ use = "discriminator", discriminator = "chosen", weight_by = "weight" }]

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "curvature", count = 512 }, { use = "truncation", count = 512 }]

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 100
vary.schedule.steps = [3, 5, 7]
vary.guidance.weight = [0.0, 2.0]
metrics = [{ use = "truncation", count = 64 }]

[[stage]]
id = "best"
use = "sample"
denoiser = "denoiser"
count = 200
first_seed = 1_000
batch_size = 50
solver = { use = "heun", s_churn = 10 }
guidance = [{ use = "discriminator", discriminator = "chosen", weight_by = "weight" }]
settings_from = { stage = "sweep", score = "truncation_5", rule = "min" }
"""

RESULTS = (
    "denoiser.safetensors",
    "discriminator.safetensors",
    "samples.safetensors",
    "scores.json",
    "loss-by-sigma.png",
    "pairs.png",
    "snapshot-*.safetensors",
    "choice.png",
    "weight.json",
    "weight.png",
)

SERVER = """
import json, os, sys
import torch._dynamo  # which every optimizer imports
sys.path.append(sys.argv[1])
from coarse import Figure, save_coarse
from genkit.cli import main
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.run import engine  # everything that a run imports, once
load_recipe(read_source("recipe.toml"), load_plugins())
Figure.savefig = save_coarse
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv[1:] = json.loads(line)
        main()
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Starts runs of the recipe as processes of their own, without importing torch for each."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "recipe.toml").write_text(RECIPE)
        self._errors = (folder / "stderr.txt").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, Path(__file__).parent / "support"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
            # Sums in another order are other bits; and a process of one thread can be forked.
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )

    def start(self, out, *settings):
        """Start a run; return the id of its process."""
        arguments = ["run", "recipe.toml", "--out", out, "--device", "cpu"]
        always = [f"{stage}.checkpoint_seconds=0" for stage in ("denoiser", "discriminator")]
        for setting in [*always, *settings]:
            arguments += ["--set", setting]
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self):
        """Return the exit code of the run; minus the signal that ended it."""
        while not (line := self._line()).lstrip("-").isdigit():
            pass  # the report of a finished run
        return int(line)

    def _line(self):
        line = self.process.stdout.readline()
        assert line, self.messages()
        return line.strip()

    def messages(self):
        self._errors.flush()
        return (self.folder / "stderr.txt").read_text()

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()
        self._errors.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = Runs(tmp_path_factory.mktemp("resume"))
    yield found
    found.close()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.glob("*/*"))
        if any(path.match(sign) for sign in RESULTS)
    }


@pytest.fixture(scope="module")
def uninterrupted(runs):
    runs.start("uninterrupted")
    assert runs.wait() == 0, runs.messages()
    found = contents(runs.folder / "uninterrupted")
    # Two stages train, with pairs, one with two snapshots; one chooses, three sample, two score.
    assert len(found) == len(RESULTS) + 7
    return found


def rows_with(folder, key):
    text = (folder / "01-denoiser" / "metrics.jsonl").read_text()
    return [line for line in text.splitlines() if key in line]


def reached(folder, stage, sign):
    """Whether an unfinished stage has come so far that it left a file."""
    with contextlib.suppress(FileNotFoundError):  # a part of the samples may go at any moment
        return any(path.stat().st_size for path in folder.glob(f"[0-9][0-9]-{stage}/{sign}"))
    return False


def unfinished(folder, stage):
    return any(
        not json.loads(path.read_text())["finished"]
        for path in folder.glob(f"[0-9][0-9]-{stage}/state.json")
    )


def stop_in(runs, out, stage, sign, delay, number):
    """Start a run, and send it a signal a while after a stage left a file.

    Returns:
        The exit code, and whether the stage was caught unfinished.
    """
    folder = runs.folder / out
    process = runs.start(out)
    deadline = time.monotonic() + 120
    while not reached(folder, stage, sign):
        assert time.monotonic() < deadline, runs.messages()
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(process, number)
    return runs.wait(), unfinished(folder, stage)


STAGES = {
    "denoiser": "checkpoint.safetensors",
    "fakes": "part-*.safetensors",
    "discriminator": "snapshot-*.safetensors",
    "chosen": "state.json",
    "weight": "state.json",
    "samples": "part-*.safetensors",
    "scores": "state.json",
    "sweep": "metrics.jsonl",
    "best": "part-*.safetensors",
}
"""Every stage of the recipe, and the file from which one sees that it is at work."""


def test_a_run_that_is_killed_in_every_stage_ends_with_the_same_bytes(runs, uninterrupted):
    moments = random.Random(0)  # noqa: S311
    for stage, sign in STAGES.items():
        caught = 0
        for attempt in range(6):
            delay = moments.uniform(0, 0.15) if attempt % 2 else 0.0
            code, in_time = stop_in(runs, "killed", stage, sign, delay, signal.SIGKILL)
            assert code in (-signal.SIGKILL, 0), runs.messages()
            caught += in_time
            if caught == 3 or not in_time:
                break
        assert caught, f"{stage} was never killed while it was at work"
    runs.start("killed")
    assert runs.wait() == 0, runs.messages()
    assert contents(runs.folder / "killed") == uninterrupted
    for key, count in (("callback", 17), ("loss_by_sigma", 16)):
        rows = rows_with(runs.folder / "killed", key)
        assert rows == rows_with(runs.folder / "uninterrupted", key)
        assert len(rows) == count
    assert not (runs.folder / "killed" / "replaced").exists()


@pytest.mark.parametrize("stage", ["denoiser", "sweep"])
def test_ctrl_c_saves_and_says_how_to_go_on(runs, uninterrupted, stage):
    out = f"stopped-{stage}"
    code, in_time = stop_in(runs, out, stage, STAGES[stage], 0.0, signal.SIGINT)
    assert (code, in_time) == (130, True)
    assert f"stopped in stage {stage}" in runs.messages()
    assert "Run the same command to resume." in runs.messages()
    assert "Traceback" not in runs.messages()
    runs.start(out)
    assert runs.wait() == 0, runs.messages()
    assert f"{stage}: resumed at " in runs.messages()
    assert contents(runs.folder / out) == uninterrupted


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(runs, uninterrupted):
    runs.start("diverged", "discriminator.optimizer.learning_rate=1e30")
    assert runs.wait() == 3
    assert "Error: stage discriminator: the " in runs.messages()
    assert "checkpoint is kept; try optimizer.learning_rate below 1e+30" in runs.messages()
    folder = runs.folder / "diverged"
    assert reached(folder, "discriminator", "checkpoint.safetensors")
    assert not list(folder.rglob("discriminator.safetensors"))
    runs.start("diverged")  # with the setting mended, what came before is used again
    assert runs.wait() == 0, runs.messages()
    assert contents(folder) == uninterrupted
    assert [p.name for p in (folder / "replaced").iterdir()] == ["001-03-discriminator"]
