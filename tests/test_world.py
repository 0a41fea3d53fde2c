"""Several processes, as torchrun starts them, leave what one leaves; and end as one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from genkit.artifacts import DenoiserFile

pytestmark = pytest.mark.slow

RECIPE = """
name = "world"
data = { use = "moons", items = 500 }

[[stage]]
id = "denoiser"
use = "train"
images = 3_200
batch_size = 64
pool_size = 96
network = { use = "mlp", width = 16, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }
callbacks = [
    { use = "preview", every = 1_600, count = 4, schedule = { use = "edm", steps = 2 } },
    { use = "score", every = 800, count = 64, schedule = { use = "edm", steps = 3 }, metrics = [
        { use = "frechet" },
    ] },
]

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 700
batch_size = 100
schedule = { use = "edm", steps = 5 }
solver = { use = "heun", s_churn = 5 }

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"

[[stage.metrics]]
use = "frechet"

[[stage.metrics]]
use = "prdc"

[[stage.metrics]]
use = "nearest"

[[stage.metrics]]
use = "mifid"

[[stage.metrics]]
use = "spread"

[[stage.metrics]]
use = "curvature"
count = 600
schedule = { use = "edm", steps = 8 }

[[stage.metrics]]
use = "truncation"
count = 600
steps = [3]
schedule = { use = "edm", steps = 8 }

[[stage]]
id = "sweep"
use = "sweep"
samples = "samples"
count = 200
vary.schedule.steps = [3, 4]
metrics = [{ use = "frechet" }]
"""

GUIDED = (
    RECIPE.replace("batch_size = 64\n", "batch_size = 64\nmicro_batch = 32\n")
    + """
[[stage]]
id = "discriminator"
use = "train"
images = 640
batch_size = 64
micro_batch = 32
checkpoint_seconds = 0
data = { use = "real-and-fake", fakes = "samples", held_out = 0.2 }
network = { use = "mlp-discriminator", width = 16, blocks = 1 }
objective = { use = "discrimination" }
coupler = { use = "partitioned", by = ["realness"] }
average = { use = "ema", half_life = 0, snapshot_images = 320 }

[[stage]]
id = "chosen"
use = "choose-discriminator"
discriminator = "discriminator"
count = 64

[[stage]]
id = "weight"
use = "fit-weight"
discriminator = "chosen"
denoiser = "denoiser"
count = 32
schedule = { use = "edm", steps = 2 }

[[stage]]
id = "tried"
use = "sample"
denoiser = "denoiser"
count = 8
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "chosen", weight_by = "weight" }]

[[stage]]
id = "weights"
use = "sweep"
samples = "tried"
count = 64
vary.guidance.weight = [0.5, 1.0]
metrics = [{ use = "frechet" }]

[[stage]]
id = "best"
use = "sample"
denoiser = "denoiser"
count = 64
first_seed = 100
batch_size = 16
schedule = { use = "edm", steps = 3 }
guidance = [{ use = "discriminator", discriminator = "chosen", weight_by = "weight" }]
settings_from = { stage = "weights", score = "frechet_pixels", rule = "min" }
"""
)
"""The recipe with a discriminator whose snapshot and weight are chosen, and samples with both.

Each of two processes computes one micro-batch, so gradients are summed as by one process.
"""

RESULTS = (
    "denoiser.safetensors",
    "samples.safetensors",
    "scores.json",
    "results.json",
)

SERVER = """
import contextlib, io, json, os, sys
import matplotlib.figure, torchmetrics.image.fid
import torch._dynamo  # which every optimizer imports
from genkit.cli import main
from genkit.plugin.manager import load_plugins
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import read_source
from genkit.run import engine  # with the libraries above all that a run imports, once
load_recipe(read_source("recipe.toml"), load_plugins())
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(["run", "--help"])
def savefig(figure, file, *, format="png", **options):  # pictures take longest, by far
    if format == "svg":
        file.write('<svg viewBox="0 0 1 1"></svg>')
matplotlib.figure.Figure.savefig = savefig
for line in sys.stdin:
    told = json.loads(line)
    children = []
    for environment in told["processes"]:
        children.append(os.fork())
        if children[-1] == 0:
            os.environ |= environment
            for stream in ("stdout", "stderr"):
                path = f"{told['out']}.{stream}.{environment['RANK']}"
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
                os.dup2(os.open(path, flags, 0o644), getattr(sys, stream).fileno())
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            exec(told["before"].get(environment["RANK"], ""))
            sys.argv[1:] = told["arguments"]
            main()
            os._exit(0)
    print(json.dumps(children), flush=True)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes), flush=True)
"""

ARGUMENTS = ("--device", "cpu", "--set", "denoiser.checkpoint_seconds=0.2")

# Sums in another order are other bits; and a process of one thread can be forked. No test is about
# the page that is written after each run.
ENVIRONMENT = {
    **os.environ,
    **{"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GENKIT_DISABLE_PLUGINS": "report"},
}


class Runs:
    """Starts runs of the recipe by several processes, without importing torch for each."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "recipe.toml").write_text(RECIPE)
        (folder / "guided.toml").write_text(GUIDED)
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=ENVIRONMENT,
        )

    def start(self, out, size, before=None, recipe="recipe"):
        """Start a run; return the ids of its processes.

        Args:
            out: folder of the run.
            size: number of processes.
            before: code that a process runs first, by its rank.
            recipe: name of the recipe.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
        told = {
            "processes": [{"WORLD_SIZE": str(size), **where, **rank} for rank in ranks],
            "out": out,
            "arguments": ["run", f"{recipe}.toml", "--out", out, *ARGUMENTS],
            "before": before or {},
        }
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def wait(self):
        """Return the exit code of each process; minus the signal that ended it."""
        return json.loads(self._process.stdout.readline())

    def run(self, out, size, before=None, recipe="recipe"):
        """Run to the end; return what it left."""
        self.start(out, size, before, recipe)
        assert self.wait() == [0] * size, self.messages(out)
        return contents(self.folder / out)

    def messages(self, out, stream="stderr"):
        """Return what each process wrote."""
        return [path.read_text() for path in sorted(self.folder.glob(f"{out}.{stream}.*"))]

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = Runs(tmp_path_factory.mktemp("world"))
    yield found
    found.close()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.name in RESULTS
    }


@pytest.fixture(scope="module")
def alone(runs):
    """What one process leaves."""
    return runs.run("alone", 1)


@pytest.fixture(scope="module")
def together(runs):
    """What two processes leave."""
    return runs.run("together", 2)


def metrics(folder):
    lines = (folder / "01-denoiser" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def wait_for(folder, stage, sign):
    """Wait until a stage has come so far that it left a file."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(FileNotFoundError):  # a part of the samples may go at any moment
            if any(path.stat().st_size for path in folder.glob(f"[0-9][0-9]-{stage}/{sign}")):
                return
        assert time.monotonic() < deadline, f"{stage} never left {sign}"
        time.sleep(0.001)


# --- the same results -----------------------------------------------------------------------


def test_two_processes_train_on_the_pairs_of_one_to_the_losses_of_one(runs, alone, together):
    one, two = (metrics(runs.folder / out) for out in ("alone", "together"))
    losses, found = ([row["loss"] for row in rows if "loss" in row] for rows in (one, two))
    assert len(losses) == 50  # a row a step
    assert found == pytest.approx(losses, rel=1e-5)
    one_of, two_of = (
        [row["loss_by_sigma"] for row in rows if "loss_by_sigma" in row] for rows in (one, two)
    )
    assert len(one_of) == 16
    for row, other in zip(one_of, two_of, strict=True):
        assert other == pytest.approx(row, rel=1e-4)
    pools, found = (
        [
            {name: value for name, value in row.items() if "seconds" not in name}
            for row in rows
            if "pool" in row
        ]
        for rows in (one, two)
    )
    assert len(pools) == 34
    assert found == pools
    one, two = (
        DenoiserFile.outline(runs.folder / out / "01-denoiser" / "denoiser.safetensors").coupling
        for out in ("alone", "together")
    )
    assert one.statistics.pairs == 3_200
    assert one == two


def test_as_many_processes_leave_the_same_bytes_again(runs, together):
    assert len(together) == len(RESULTS) + 1  # two stages score
    assert runs.run("again", 2) == together


UNOBSERVED = "from genkit_stages.callbacks import Callbacks; Callbacks.due = lambda *_: []"


def test_rank_0_calls_callbacks_and_no_bit_depends_on_them(runs, alone, together):
    one, two = (
        [row for row in metrics(runs.folder / out) if "callback" in row]
        for out in ("alone", "together")
    )
    assert [row["images"] for row in two] == [832, 1600, 2432, 3200]
    for row, other in zip(one, two, strict=True):
        assert other == {**row, "frechet_pixels": pytest.approx(row["frechet_pixels"], rel=1e-3)}
    assert (runs.folder / "together" / "01-denoiser" / "preview-raw.png").exists()
    found = runs.run("unobserved", 2, dict.fromkeys("01", UNOBSERVED))
    assert not (runs.folder / "unobserved" / "01-denoiser" / "preview-raw.png").exists()
    for name in found.keys() - {"results.json"}:  # which lists the pictures
        assert found[name] == together[name], name


UNSHARED = "from genkit_stages.evaluate import Evaluate; Evaluate.shared = False"


@pytest.mark.parametrize(("size", "before"), [(2, ""), (3, ""), (2, UNSHARED)])
def test_samples_and_scores_of_a_network_are_the_bytes_of_one_process(runs, alone, size, before):
    out = f"scored-{size}-{len(before)}"
    trained = runs.folder / "alone"
    shutil.copytree(trained, runs.folder / out, ignore=shutil.ignore_patterns("0[234]-*"))
    assert runs.run(out, size, {str(rank): before for rank in range(size)}) == alone
    assert "denoiser: finished before" in runs.messages(out)[0]
    assert runs.messages(out)[1:] == [""] * (size - 1)
    assert "Scores of sweep" in runs.messages(out, "stdout")[0]
    assert runs.messages(out, "stdout")[1:] == [""] * (size - 1)


KILLED = """
import os, signal
from genkit_dg.discrimination import Discrimination
loss, calls = Discrimination.loss, []
def killed(*arguments):
    calls.append(1)
    if len(calls) == 8:  # in the sixth of ten steps, after two calls of the warm-up
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(*arguments)
Discrimination.loss = killed
"""


def test_a_guided_run_of_two_processes_that_was_killed_is_the_bytes_of_one(runs):
    runs.run("guided-1", 1, recipe="guided")
    runs.start("guided-2", 2, {"1": KILLED}, recipe="guided")
    assert runs.wait() == [1, -signal.SIGKILL]
    runs.run("guided-2", 2, recipe="guided")
    assert "denoiser: finished before" in runs.messages("guided-2")[0]
    assert "discriminator: resumed at 320 of 640 images" in runs.messages("guided-2")[0]
    one, two = (
        {
            path.relative_to(runs.folder / out): path.read_bytes()
            for name in ("*.safetensors", "*.json")
            for path in (runs.folder / out).glob(f"[0-9]*/{name}")
            if not path.name.startswith(("checkpoint", "cost", "state"))
        }
        for out in ("guided-1", "guided-2")
    )
    assert one == two
    names = {path.as_posix() for path in one}
    assert {f"05-discriminator/snapshot-{images:011}.safetensors" for images in (320, 640)} < names
    assert {"01-denoiser/denoiser.safetensors", "07-weight/weight.json"} < names
    assert {"06-chosen/discriminator.safetensors", "10-best/samples.safetensors"} < names


def test_the_processes_are_written_down(runs, together):
    told = json.loads((runs.folder / "together" / "environment.json").read_text())
    assert told["processes"] == 2
    assert [where["device"] for where in told["devices"]] == ["cpu", "cpu"]


# --- stopping -------------------------------------------------------------------------------

SLOW = """
import time
from genkit_stages.sample import Sample
draw = Sample.draw
def slowly(*arguments):
    time.sleep(0.2)
    return draw(*arguments)
Sample.draw = slowly
"""


@pytest.mark.parametrize(
    ("stage", "sign", "size"),
    [("denoiser", "checkpoint.safetensors", 2), ("samples", "part-*", 1)],
)
def test_a_stop_is_one_for_all_and_the_run_goes_on_to_the_same_bytes(
    runs, together, stage, sign, size
):
    out = f"stopped-{stage}"
    processes = runs.start(out, 2, {"0": SLOW, "1": SLOW})
    wait_for(runs.folder / out, stage, sign)
    os.kill(processes[1], signal.SIGINT)  # as Ctrl-C on one of two machines
    codes = runs.wait()
    assert codes[0] == 130
    assert codes[1] != 0
    leading, other = runs.messages(out)
    assert f"stopped in stage {stage}: " in leading
    assert "Run the same command to resume." in leading
    assert "Traceback" not in leading
    assert other == ""
    assert runs.run(out, size) == together  # also where other processes draw the rest


def test_a_process_that_is_killed_ends_the_others(runs, together):
    processes = runs.start("killed", 2)
    wait_for(runs.folder / "killed", "denoiser", "checkpoint.safetensors")
    os.kill(processes[1], signal.SIGKILL)
    begun = time.monotonic()
    assert runs.wait() == [1, -signal.SIGKILL]
    assert time.monotonic() - begun < 20
    leading = runs.messages("killed")[0]
    assert (
        "another process of this run was killed or lost; run the same command to resume" in leading
    )
    assert "Traceback" not in leading
    assert runs.run("killed", 2) == together


PONDERS = """
import time
from genkit_aot.hungarian import Hungarian
pair = Hungarian.pair
def slowly(self, batch, noise, generator):
    if len(noise) < 96:  # the last pool
        open("ponders", "w").close()
        time.sleep(120)
    return pair(self, batch, noise, generator)
Hungarian.pair = slowly
"""


@pytest.mark.parametrize("size", [1, 2])
def test_a_second_ctrl_c_waits_for_no_coupler(runs, size):
    processes = runs.start(f"twice-{size}", size, {str(rank): PONDERS for rank in range(size)})
    sign, begun = runs.folder / "ponders", time.monotonic()
    while not sign.exists():
        assert time.monotonic() - begun < 60
        time.sleep(0.01)
    sign.unlink()
    time.sleep(0.5)  # until training waits for the pool as well
    begun = time.monotonic()
    for _ in range(2):
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGINT)
        time.sleep(0.2)
    assert 0 not in runs.wait()
    assert time.monotonic() - begun < 60
    told = "".join(runs.messages(f"twice-{size}"))
    assert "Traceback" not in told
    assert "run the same command to resume" in told.lower()


FAILS = """
from genkit.errors import DataError
from genkit_stages.sample import Sample
def draw(*arguments):
    raise {error}("item 7 is broken")
Sample._draw = draw
"""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("DataError", 2, "Error: stage samples: item 7 is broken\n"),
        ("ZeroDivisionError", 1, "ZeroDivisionError: item 7 is broken\n"),
    ],
)
def test_an_error_in_one_process_is_told_by_it_and_ends_all(runs, error, code, message):
    before = FAILS.format(error=error)
    runs.start(f"failed-{error}", 2, {"1": before})
    assert runs.wait() == [1, code]
    leading, other = runs.messages(f"failed-{error}")
    assert other.endswith(message)
    assert ("Traceback" in other) == (error == "ZeroDivisionError")
    told = [line for line in leading.splitlines() if not line.startswith("Warning: ")]
    assert told[-1].endswith("samples (sample): started")


def test_a_mistake_that_all_processes_find_is_told_once(runs):
    (runs.folder / "occupied").mkdir()
    (runs.folder / "occupied" / "file").touch()
    for out, before, message in (
        (
            "occupied",
            "",
            "Error: occupied is not empty and does not contain a run; choose another --out\n",
        ),
        ("broken", FAILS.format(error="DataError"), "item 7 is broken\n"),
    ):
        runs.start(out, 2, {"0": before, "1": before})
        assert 0 not in runs.wait()
        assert "".join(runs.messages(out)).count("Error: ") == 1
        assert message in "".join(runs.messages(out))


# --- torchrun -------------------------------------------------------------------------------


def test_torchrun_hands_ctrl_c_on_and_the_run_goes_on(runs, together):
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--log-dir=log"]
    command = [*launch, "-m", "genkit", "run", "recipe.toml", "--out", "launched", *ARGUMENTS]
    with subprocess.Popen(
        command, cwd=runs.folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_for(runs.folder / "launched", "denoiser", "checkpoint.safetensors")
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode != 0
    assert told.count("stopping and saving") == 1
    assert told.count("stopped in stage denoiser: ") == 1
    assert runs.run("launched", 2) == together
