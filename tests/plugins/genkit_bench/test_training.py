from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genkit.errors import Code, DivergedError, UsageError
from genkit.interfaces import Objective
from genkit.parts.flops import call_flops
from genkit.plugin.manager import load_plugins
from genkit.random import generator, seeded
from genkit.recipe.source import Source
from genkit.types import Batch
from genkit_bench import flops
from genkit_bench.contender import PHASES, BenchContext, Contender, Feed
from genkit_bench.flops import peak_flops, training_flops
from genkit_bench.meters import Phases
from genkit_bench.plain import PlainTrainer
from genkit_bench.stages import load_stages
from genkit_bench.training import Effort, measure_training
from raising import raises_code

CPU = torch.device("cpu")
RECIPE = """
name = "bench"
data = { use = "image-folder", root = "nowhere" }

[[stage]]
id = "denoiser"
use = "train"
images = 64
batch_size = 8
pool_size = 16
optimizer.gradient_clip = 1.0
network = { use = "mlp", width = 16, blocks = 1 }
objective = { use = "denoising" }
coupler = { use = "hungarian" }

[[stage]]
id = "second"
use = "train"
data = { use = "digits" }
images = 64
network = { use = "mlp", width = 16, blocks = 1 }
objective = { use = "denoising" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "nobody"
"""
DATA = {"use": "synthetic", "shape": [1, 4, 4], "classes": 3, "count": 50}


def stage_of(text=RECIPE, wanted=None, overrides=(), data=DATA):
    chosen, stages = load_stages(
        Source.parse(text), load_plugins(), overrides, "train", wanted, data
    )
    return stages[chosen]


def measured(names, **changes):
    told = []
    stage = replace(stage_of(), **changes)
    found = measure_training(stage, names, CPU, Effort(32, 2), 0, told.append)
    return found, told


def test_variants_are_measured_in_turns():
    before = torch.random.get_rng_state()
    found, told = measured(("plain", "float32", "recipe"))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [row.variant for row in found.rows] == ["plain", "float32", "recipe"]
    rounds = [line for line in told if "round" in line]
    assert [line.partition(":")[0] for line in rounds] == ["plain", "float32", "recipe"] * 2
    assert found.rows[0].against_plain == 1
    for row in found.rows:
        assert row.images_per_second > 0
        assert row.against_plain > 0
        assert set(row.phases) == set(PHASES)
        assert min(row.phases.values()) >= 0
        assert row.phases["forward"] > 0
        assert row.seconds_waited >= 0
        assert row.utilization is None
    assert (found.batch_size, found.pool_size) == (8, 16)
    assert found.seconds_data > 0
    assert found.seconds_coupling > 0
    model = stage_of().network.build(stage_of().spec())
    assert found.parameters == sum(p.numel() for p in model.parameters())


def test_phases_add_up_to_the_step(monkeypatch):
    now = iter(range(10**6))  # every look at the clock takes a second, and nothing else does
    clock = SimpleNamespace(perf_counter=lambda: next(now))
    monkeypatch.setattr("genkit_bench.meters.time", clock)
    stage = stage_of()
    context = BenchContext(CPU)
    feed = Feed(stage.stream(context, 640), stage.batch_size, 1)
    contender = Contender(stage, "float32", context, stage.spec(), feed)
    contender.run_phases(feed, 2)
    feed.close()
    # A step looks at its own ends and at those of forward, optimizer and average.
    assert contender.phases == {"forward": 1, "backward": 4, "optimizer": 1, "EMA": 1}
    assert sum(contender.phases.values()) == 7


def test_what_a_machine_cannot_do_is_noted(monkeypatch):
    def missing(device):
        raise UsageError("no compiler here\nat all")

    monkeypatch.setattr("genkit.train.trainer.require_compiler", missing)
    found, _ = measured(("float32", "compiled"))
    assert found.rows[0].images_per_second > 0
    assert found.rows[0].against_plain is None
    assert found.rows[1].images_per_second is None
    assert found.rows[1].note == "no compiler here"


def test_the_plain_step_trains_the_same_weights():
    stage = stage_of()
    context = BenchContext(CPU)
    batches = list(stage.stream(context, 64).batches(8))
    fast = stage.trainer(context, stage.spec())
    with seeded(context.seed("weights")):
        plain = PlainTrainer(stage, stage.network.build(stage.spec()), stage.spec().shape, CPU)
    before = {name: p.detach().clone() for name, p in fast.model.named_parameters()}
    for batch, noise, _ in batches:
        loss = float(fast.step(batch, noise))
        assert plain.step(batch, noise) == pytest.approx(loss, rel=1e-5)
    ours = dict(fast.average.model.named_parameters())
    pairs = [(p, ours[name], before[name]) for name, p in plain.average.model.named_parameters()]
    apart = torch.cat([(mine - other).flatten() for mine, other, _ in pairs])
    change = torch.cat([(other - start).flatten() for _, other, start in pairs])
    assert float(apart.norm() / change.norm()) < 1e-3


def test_the_plain_step_tells_what_diverged():
    stage = stage_of()
    trainer = PlainTrainer(stage, stage.network.build(stage.spec()), stage.spec().shape, CPU)
    batch = Batch(torch.full((2, 1, 4, 4), torch.nan), quantile=torch.full((2,), 0.5).double())
    with raises_code(DivergedError, Code.DIVERGED, "loss", "nan", "0"):
        trainer.step(batch, torch.zeros(2, 1, 4, 4))


def test_operations_are_those_of_the_matrices():
    class Total(Objective):
        def loss(self, model, batch, noise, generator):
            return model(batch.data).square().sum(1)

    model = nn.Linear(10, 20, bias=False)
    batch = Batch(torch.randn(4, 10, generator=generator(0)))
    # Two a product: forward 2 x 10 x 20, and as much for the gradient of the weight.
    assert training_flops(model, Total(), batch, torch.zeros(4, 10)) == 2 * 2 * 10 * 20

    class Called(nn.Module):
        def forward(self, x, sigma, labels):
            return model(x)

    assert call_flops(Called(), batch.data, torch.ones(4), None) == 2 * 10 * 20


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "tf32", 494.7e12),
        ("NVIDIA H100 80GB HBM3", "float32", 67e12),
        ("NVIDIA H200", "bfloat16", 989.4e12),
        ("NVIDIA H100 PCIe", "float16", 756e12),
        ("Something else", "bfloat16", None),
    ],
)
def test_peaks_of_devices(monkeypatch, name, precision, peak):
    monkeypatch.setattr(flops.torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), precision) == peak
    assert peak_flops(CPU, precision) is None


def test_phases_add_up_calls():
    phases = Phases(CPU)
    with phases.phase("before"):
        pass
    with phases.counting():
        with phases.phase("work"):
            time.sleep(0.01)
        once = phases.seconds["work"]
        phases.begin("work")
        time.sleep(0.01)
        phases.end("work")
        phases.end("never begun")
    assert phases.seconds["work"] > once > 0
    assert set(phases.seconds) == {"work"}


def test_only_what_is_measured_must_be_right():
    # The last stage of the recipe refers to nobody.
    assert stage_of().data.shape == (1, 4, 4)
    assert stage_of(wanted="second").data.shape == (1, 4, 4)
    assert stage_of(overrides=["denoiser.images=32"]).images == 32
    with raises_code(UsageError, Code.NOT_FOUND, "nowhere"):
        stage_of(data=None)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("denoisr", ('"denoisr"', '"denoiser"')),
        ("samples", ('"samples"', "denoiser", "second")),
    ],
)
def test_a_stage_that_is_not_there(wanted, message):
    with raises_code(UsageError, Code.UNKNOWN_STAGE, *message):
        stage_of(wanted=wanted)
    with raises_code(UsageError, Code.UNKNOWN_STAGE, "none"):
        stage_of('name = "empty"')
