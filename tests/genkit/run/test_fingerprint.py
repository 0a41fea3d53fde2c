"""Fingerprints: they change with all that a result depends on, and with nothing else."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from genkit.artifacts import DenoiserRef, Record, Samples, SamplesRef, Scores
from genkit.designs import components, references
from genkit.errors import Code, PluginError
from genkit.interfaces import Component, Stage
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.run.context import StageContext
from genkit.run.engine import fingerprints
from genkit.run.fingerprint import reachable
from genkit.run.progress import Progress
from genkit_stages.train import Train
from raising import raises_code

pytestmark = pytest.mark.slow


@pytest.fixture
def prints(tiny):
    def of(text, *overrides):
        return fingerprints(tiny.load(text, *overrides), tiny.plugins.registry)

    return of


def changed(before, after):
    return [stage for stage in before if before[stage] != after[stage]]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("seed=1", ["denoiser", "samples", "sweep"]),
        ("denoiser.images=300", ["denoiser", "samples", "sweep"]),
        ("denoiser.network.width=9", ["denoiser", "samples", "sweep"]),
        ("data.items=300", ["denoiser", "samples", "sweep"]),
        ("samples.count=25", ["samples", "sweep"]),
        ("sweep.count=9", ["sweep"]),
        ("sweep.vary.schedule.steps=[2]", ["sweep"]),
        ("denoiser.checkpoint_seconds=1.5", []),
        ("denoiser.average.ramp_up=0.05", []),
        ("denoiser.micro_batch=16", ["denoiser", "samples", "sweep"]),
        ('device="cpu"', []),
        ('name="other"', []),
    ],
)
def test_a_setting_changes_its_stage_and_those_below(tiny, prints, override, stages):
    assert changed(prints(tiny.sweep), prints(tiny.sweep, override)) == stages


def test_an_integer_where_a_float_is_meant_is_the_same(tiny, prints):
    whole = prints(tiny.sweep, "denoiser.optimizer.gradient_clip=1")
    assert whole == prints(tiny.sweep, "denoiser.optimizer.gradient_clip=1.0")


def test_the_id_of_a_stage_counts_for_its_random_numbers_derive_from_it(tiny, prints):
    other = prints(tiny.train.replace('id = "denoiser"', 'id = "other"'))
    assert set(other.values()).isdisjoint(prints(tiny.train).values())


def test_the_version_of_a_plugin_counts_where_it_is_used(tiny, prints, monkeypatch):
    before = prints(tiny.sweep)
    registry = tiny.plugins.registry
    entries = registry.entries()

    def newer(plugin):
        def upgraded(kind=None):
            return [
                type(e)(e.kind, e.name, e.target, type(e.owner)(plugin, e.owner.distribution, "9"))
                if e.owner.plugin == plugin
                else e
                for e in entries
            ]

        return upgraded

    with monkeypatch.context() as patched:
        patched.setattr(type(registry), "entries", lambda self, kind=None: newer("metrics")(kind))
        assert changed(before, prints(tiny.sweep)) == ["sweep"]
    with monkeypatch.context() as patched:
        patched.setattr(type(registry), "entries", lambda self, kind=None: newer("dg")(kind))
        assert prints(tiny.sweep) == before


def test_the_code_of_a_component_counts_where_it_is_used(tiny, prints, monkeypatch, tmp_path):
    before = prints(tiny.sweep)
    for module, stages in (
        ("genkit_edm.solvers.heun", ["samples", "sweep"]),
        ("genkit_edm.solvers.path", ["samples", "sweep"]),  # that the module of the solver imports
        ("genkit_dg.guidance", []),
    ):
        loaded = importlib.import_module(module)
        edited = tmp_path / f"{module}.py"
        edited.write_text(Path(loaded.__file__).read_text() + "\n# edited\n")
        with monkeypatch.context() as patched:
            patched.setattr(loaded, "__file__", str(edited))
            assert changed(before, prints(tiny.sweep)) == stages


THIRD_PARTY = {
    "__init__.py": "",
    "coupler.py": """
from genkit.types import Pairs
from .base import Base

class Mine(Base):
    def pair(self, batch, noise, generator):
        from .inner.deep import order
        return Pairs(order(batch), order(batch))
""",
    "base.py": """
from genkit.interfaces import Coupler

class Base(Coupler):
    bijective = True
""",
    "schedule.py": """
import genkit_lab.numbers
from genkit.interfaces import Schedule

class Levels(Schedule):
    def sigmas(self):
        return genkit_lab.numbers.levels()
""",
    "numbers.py": """
import torch

def levels():
    return torch.tensor([1.0, 0.0], dtype=torch.float64)
""",
    "inner/__init__.py": "",
    "inner/deep.py": "from ..order import order\n",
    "order.py": "import torch\n\ndef order(batch):\n    return torch.arange(len(batch))\n",
    "unused.py": "",
}


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    """Return a registry with a third-party coupler and a schedule, and the folder of their code."""
    folder = tmp_path / "genkit_lab"
    for name, text in THIRD_PARTY.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins()
    registration = Registration(Owner("lab", "genkit-lab", "0.1"))
    registration.add("coupler", "mine", "genkit_lab.coupler:Mine")
    registration.add("schedule", "levels", "genkit_lab.schedule:Levels")
    plugins.registry.accept(registration)
    yield plugins, folder
    for name in [name for name in sys.modules if name.startswith("genkit_lab")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("coupler.py", ["denoiser", "samples", "sweep"]),
        ("base.py", ["denoiser", "samples", "sweep"]),
        ("inner/deep.py", ["denoiser", "samples", "sweep"]),
        ("order.py", ["denoiser", "samples", "sweep"]),
        ("schedule.py", ["samples", "sweep"]),
        ("numbers.py", ["samples", "sweep"]),
        ("unused.py", []),
        ("__init__.py", []),
    ],
)
def test_an_edit_of_a_third_partys_module_redoes_what_uses_it(tiny, laboratory, file, stages):
    plugins, folder = laboratory
    text = tiny.sweep.replace("objective", 'coupler = { use = "mine" }\nobjective', 1)
    text = text.replace('{ use = "edm", steps = 3 }', '{ use = "levels" }')
    text = text.replace("vary.schedule.steps = [2, 3]\nvary.schedule.rho = [7.0, 20.0]\n", "")
    text = text.replace("count = 8\nmetrics", "count = 8\nvary.first_seed = [0, 1]\nmetrics")
    recipe = load_recipe(Source.parse(text), plugins)
    before = fingerprints(recipe, plugins.registry)
    assert fingerprints(recipe, plugins.registry) == before
    (folder / file).write_text((folder / file).read_text() + "\n# edited\n")
    assert changed(before, fingerprints(recipe, plugins.registry)) == stages
    importlib.import_module("genkit_lab.inner.deep")  # whether it is imported yet is no matter
    assert changed(before, fingerprints(recipe, plugins.registry)) == stages


def test_a_component_without_a_file_counts_by_its_version(tiny, prints, monkeypatch, tmp_path):
    module = importlib.import_module("genkit_edm.solvers.heun")
    before = prints(tiny.sweep)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "gone.py"))
    gone = prints(tiny.sweep)
    assert changed(before, gone) == ["samples", "sweep"]
    monkeypatch.delattr(module, "__file__")
    assert prints(tiny.sweep) == gone


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("genkit_edm.solvers.heun:Heun", ["samples", "sweep"]),
        ("genkit_metrics.truncation:Truncation", ["sweep"]),
        ("genkit_edm.mlp:Mlp", ["denoiser", "samples", "sweep"]),
    ],
)
def test_the_files_of_every_component_count(tiny, prints, monkeypatch, target, stages):
    module, _, name = target.partition(":")
    before = prints(tiny.sweep)
    cls = getattr(importlib.import_module(module), name)
    monkeypatch.setattr(cls, "version", lambda self: "another file", raising=True)
    assert changed(before, prints(tiny.sweep)) == stages


def test_a_reference_is_found_at_any_depth(tiny):
    stages = tiny.load(tiny.sample + tiny.guided).stages
    assert list(references(stages["discriminator"])) == ["samples"]
    assert sorted(references(stages["guided"])) == ["denoiser", "discriminator"]
    names = {type(part).__name__ for part in components(stages["discriminator"])}
    assert {"Train", "RealAndFake", "Moons", "Partitioned", "Hungarian", "DgImportance"} <= names


@dataclass(frozen=True, kw_only=True)
class Guides(Component):
    """Names stages in every way that annotations allow."""

    one: DenoiserRef = "a"
    optional: DenoiserRef | None = None
    several: tuple[SamplesRef, ...] = ()
    pair: tuple[DenoiserRef, int] = ("b", 1)
    nested: tuple[tuple[DenoiserRef, ...], ...] | None = None
    plain: str = "z"


def test_references_are_found_in_options_and_tuples():
    assert list(references(Guides())) == ["a", "b"]
    every = Guides(optional="c", several=("d", "e"), nested=(("f",), ("g", "h")))
    assert list(references(every)) == ["a", "c", "d", "e", "b", "f", "g", "h"]


def test_a_stage_depends_on_what_it_names_directly_or_not(tiny):
    stages = tiny.load(tiny.sweep).stages
    assert reachable("sweep", stages) == {"samples", "denoiser"}
    assert reachable("samples", stages) == {"denoiser"}
    assert reachable("denoiser", stages) == set()


@dataclass(frozen=True, kw_only=True)
class Reads(Stage):
    """Names stages by references, and one by a plain string."""

    output = Scores
    optional: DenoiserRef | None = None
    several: tuple[SamplesRef, ...] = ()
    plain: str = ""

    def run(self, context):
        raise NotImplementedError


def test_a_stage_reads_what_references_name_and_not_what_a_string_names(tiny, tmp_path):
    reads = Reads(optional="a", several=("b", "c"), plain="d")
    stages = {**dict.fromkeys("abcd", Reads()), "reads": reads}
    context = StageContext(
        stage_id="reads",
        folder=tmp_path,
        record=Record("reads", tmp_path, None),
        device=torch.device("cpu"),
        run_seed=0,
        stages=stages,
        folders={stage: tmp_path / stage for stage in "abcd"},
        registry=tiny.plugins.registry,
        progress=Progress(),
        stop_requested=lambda: False,
    )
    for stage in "abc":
        assert context.stage(stage) is stages[stage]
    reading = (lambda stage: context.read(stage, Samples), context.network, context.digest)
    for use in (context.stage, *reading):
        with raises_code(PluginError, Code.PLUGIN, '"d"'):
            use("d")


def test_a_stage_that_is_not_named_cannot_be_used(tiny, monkeypatch):
    """Its results would not count in the fingerprint."""
    uses = []
    later = (
        tiny.sample
        + """
[[stage]]
id = "other"
use = "train"
images = 64
batch_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
"""
    )
    original = Train.run

    def dispatched(self, context):
        if context.stage_id != "other":
            original(self, context)
            return
        with raises_code(PluginError, Code.PLUGIN, 'stage "train"', '"denoiser"'):
            context.network("denoiser")
        for use in (lambda stage: context.read(stage, Samples), context.digest, context.stage):
            with raises_code(PluginError, Code.PLUGIN, '"samples"'):
                use("samples")
        uses.append(True)
        original(self, context)

    monkeypatch.setattr(Train, "run", dispatched)
    tiny.run(later)
    assert uses == [True]
