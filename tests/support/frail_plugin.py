"""Source text of a plugin whose components raise an error at the place that a test names."""

HOOKS = """
import typer
from genkit.plugin import hookimpl

@hookimpl
def genkit_register(registry):
    for kind, target in (
        ("coupler", "Pairing"), ("dataset", "Points"), ("denoiser", "Net"),
        ("metric", "Score"), ("importer", "Reader"), ("schedule", "Levels"), ("stage", "Own"),
        ("augmentation", "Flip"), ("guidance", "Push"), ("extractor", "Parities"),
    ):
        registry.add(kind, "frail", f"toy_frail.parts:{target}")
    registry.add("solver", "frail", "toy_frail.broken:Nothing")

@hookimpl
def genkit_commands(app):
    @app.command()
    def frailty(code: int = 0):
        from toy_frail.helper import fail
        if code:
            raise SystemExit(code)
        fail("command")
"""

HELPER = """
import os

from genkit.errors import Code, DataError

def fail(place):
    if os.environ.get("FRAIL") == place:
        raise ZeroDivisionError(place)
    if os.environ.get("FRAIL") == f"exit {place}":
        raise SystemExit(0)
    if os.environ.get("FRAIL") == f"refusal {place}":
        raise DataError(f"{place} is too small; write a larger one", Code.OUT_OF_RANGE)
    if os.environ.get("FRAIL") == f"disk {place}":
        raise OSError(28, "No space left on device")
"""

PARTS = """
import os

import genkit
import torch
from torch import nn

from genkit.artifacts import Samples, Scores
from genkit.interfaces import (
    Augmentation, BoundGuidance, Coupler, Dataset, Denoiser, Extractor, Guidance, Imported,
    Importer, Metric, Schedule, Stage,
)
from genkit.types import Batch, DataSpec, Measurement, Pairs
from toy_frail.helper import fail

class Base(Coupler):
    bijective = True

    def __post_init__(self):
        super().__post_init__()
        fail("__post_init__")

    def check(self, earlier):
        fail("check")
        yield from ()

    def pair(self, batch, noise, generator):
        fail("pair")
        ordered = torch.arange(len(batch))
        return Pairs(ordered, ordered * (os.environ.get("FRAIL") != "one noise for all"))

class Pairing(Base):
    pass

class Points(Dataset):
    def spec(self):
        fail("spec")
        return DataSpec((2,))

    def version(self):
        fail("version")
        return ""

    def load(self, inputs):
        fail("load")
        return Batch(torch.linspace(-1, 1, 64).reshape(32, 2))

class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x, c_noise, labels):
        fail("forward")
        return self.linear(x)

class Net(Denoiser):
    def build_network(self, spec):
        fail("build")
        return Linear()

class Parity(nn.Module):
    def forward(self, x):
        fail("features")
        return x

class Parities(Extractor):
    label = "parities"

    def bind(self, inputs):
        return Parity()

    def identity(self, inputs):
        return "parities"

class Score(Metric):
    scores = ("ones",)

    def measure(self, subject, context):
        fail("measure")
        return Measurement({"ones": 1.0})

class Levels(Schedule):
    def sigmas(self):
        fail("sigmas")
        return torch.tensor([1.0, 0.1, 0.0], dtype=torch.float64)

class Own(Stage):
    @property
    def output(self):
        fail("output")
        return {"saves nothing": Scores, "drawn": Samples}.get(os.environ.get("FRAIL"))

    def run(self, context):
        fail("run")
        how = os.environ.get("FRAIL")
        if how == "saves":
            context.record.save(Scores([]))
        if how == "drawn":
            context.record.save(Samples(Batch(torch.zeros(1, 2)), 1, denoiser="denoiser"))
        if how == "reads":
            context.stage("samples")

class Flip(Augmentation):
    def augment(self, batch, generator):
        fail("augment")
        return batch

class BoundPush(BoundGuidance):
    def correction(self, x, sigma, labels, denoised, *, inner=False):
        fail("correction")
        others = {"flat": x[0], "infinite": x / 0}
        return others.get(os.environ.get("FRAIL"), torch.zeros_like(x))

class Push(Guidance):
    def check_guided(self, denoiser, networks):
        fail("check_guided")
        yield from ()

    def bind(self, inputs, denoiser):
        fail("bind")
        return None if os.environ.get("FRAIL") == "binds nothing" else BoundPush()

class Reader(Importer):
    def read(self, path):
        fail("read")
        net = Net(preconditioner=genkit.component("preconditioner", "edm"))
        spec = DataSpec((2,))
        return Imported(net, spec, net.build(spec).state_dict(), 0)
"""

RECIPE = """
name = "frail"
data = { use = "frail" }

[[stage]]
id = "denoiser"
use = "train"
images = 32
batch_size = 16
network = { use = "frail" }
objective = { use = "denoising" }
coupler = { use = "frail" }
augmentation = { use = "frail" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 4
schedule = { use = "frail" }
guidance = [{ use = "frail" }]

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "frail" }]

[[stage]]
id = "own"
use = "frail"
"""
