"""The shipped recipes on a second device in place of a GPU, see ``second_device``.

A tensor on the wrong device, or a value that the host reads where it must not wait for the device,
is an error. Networks are small, and all components are those of the recipes.
"""

from __future__ import annotations

import functools
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

from genkit.artifacts import NetworkFile, Samples
from genkit.designs import references
from genkit.latents import Derived
from genkit.parts.precision import multiplying_in
from genkit.plugin.manager import load_plugins
from genkit.recipe.in_code import Recipe
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import shipped_recipes
from genkit.sample import GuidedDenoiser, resolve_start
from genkit.tensors import network_digest, require_finite
from genkit.testing.workplace import Workplace
from genkit_aot.hungarian import Hungarian
from genkit_data.augment import EdmAugmentation
from genkit_edm.denoising import Denoising
from genkit_edm.guidance.extrapolation import Extrapolation
from genkit_edm.latents import EdmLatents
from genkit_edm.mlp import ResidualMlp
from genkit_edm.solvers.heun import Heun
from genkit_stages.fitted_levels import FittedLevels, name_of
from genkit_stages.level_search import KnownLevels
from published_data import write_published_data
from second_device import DEVICE, ReadError, SecondDevice, WrongDeviceError
from toy_sampling import Gaussian, Shift

SHIPPED = sorted(shipped_recipes())
QUICK = {
    *(name for name in SHIPPED if not name.startswith(("cifar10/", "fashion_mnist/"))),
    "cifar10/cond_edm_aot_dg",
    "cifar10/published_aot_dg",
    "fashion_mnist/edm_aot",
}
"""Recipes that contain all components of the others, whose U-Nets take a second per stage."""

STEPS = 3  # the middle one of the noise levels is in the default interval of guidance
LEVELS = (10.0, 3.0, 1.0)

SMALLER = {
    "mlp": {"width": 8, "blocks": 1},
    "ddpmpp": {"channels": 8, "blocks": 1, "channel_mult": [1, 1], "attention": [14, 16]},
    "ncsnpp": {"channels": 8, "blocks": 1, "channel_mult": [1, 1]},
    "edm2": {"channels": 8, "channels_per_head": 8},
    "scratch": {"channels": 16},
    "denoiser-encoder": {"channels": 64, "blocks": 1},
    "adm-classifier": {"channels": 64, "blocks": 1},
    "train": {"images": 4, "batch_size": 2, "pool_size": 4, "micro_batch": None},
    "sample": {"count": 6, "settings_from": None},
    "fit-schedule": {"steps": STEPS},
    "fit-weight": {"count": 32},
    "choose-discriminator": {"count": 32},
}
"""Settings by component."""

READS = {
    # In threads of their own, and on a stream of their own: training does not wait.
    "pairing": {
        "assignment.py:assign",
        "entropic.py:Costs.__init__.<locals>.<genexpr>",
        "entropic.py:Costs._measure",
        "pairs.py:require_unchanged",
        "partitioned.py:_groups",
        "tensors.py:require_finite",
        "types.py:Batch.to.<locals>.<lambda>",
    },
    # Once a second, and for rows and checkpoints.
    "saving": {
        "trainer.py:Trainer.finite_images",
        "trainer.py:Trainer.mean_loss",
        "by_quantile.py:LossByQuantile.sums",
        "power_ema.py:_to_float16",
        "tensors.py:save.<locals>.<dictcomp>",
        "trainer.py:Trainer._require_finite.<locals>.<genexpr>",
    },
    # Before the first step and after the last one.
    "sampling": {
        "latents.py:draws_of",
        "sample.py:_require_finite",
        "sample.py:sample",
        "tensors.py:network_digest",
    },
    "loading": {"tensors.py:network_digest"},
}
"""Places that may read from the device, by part of a run. A training step is not among them."""

WAITING = {
    "evaluate": "features are computed on the device, and scores on the CPU",
    "sweep": "scores are computed on the CPU",
    "fit-schedule": "energy distances are compared on the host after each candidate",
    "fit-weight": "sums are read at each noise level",
    "choose-discriminator": "logits are read for each snapshot",
}
"""Stages that cannot run without reads between their calls of networks, with the reason."""


def smaller(value, key=""):
    """Return a value of a recipe with smaller settings."""
    if isinstance(value, list):
        return [smaller(item) for item in value]
    if not isinstance(value, dict) or key == "vary":
        return value
    less = {"steps": STEPS} if key == "schedule" else SMALLER.get(value.get("use"), {})
    if value.get("id") == "fakes":
        less = {**less, "count": 200, "schedule": {"use": "edm", "steps": 1}}
    if "held_out" in value:
        less = {**less, "held_out": 0.5}  # so that both parts have all classes
    table = {key: smaller(item, key) for key, item in value.items()} | less
    return {key: item for key, item in table.items() if item is not None}


class Run:
    """A recipe in a folder, whose stages run on the second device.

    Args:
        name: name of the recipe.
        root: folder for its stages.

    Attributes:
        reads: places that read from the device, by part of the run.
    """

    def __init__(self, name, root):
        table = smaller(Recipe.read(name).table)
        self.stages = load_recipe(Recipe.of(table).source, load_plugins()).stages
        self.uses = {stage["id"]: stage["use"] for stage in table["stage"]}
        self.place = Workplace(root, self.stages)
        self.device = SecondDevice()
        self.reads = {part: set() for part in READS}

    def run(self):
        """Run the stages, apart from those that cannot run here."""
        for name, stage in self.stages.items():
            use, context = self.uses[name], self.context(name)
            with self.device:
                if use == "train":
                    self.train(stage, context)
                elif use == "sample":
                    if isinstance(stage.latents, EdmLatents):
                        stage = replace(stage, latents=Derived())  # see below
                    with self.part("sampling"):
                        samples = stage.draw(context)
                    samples.save(context.folder / Samples.filename())
                elif use == "fit-schedule":
                    self.levels(stage, context)
                elif use == "choose-discriminator":
                    chosen = self.place.root / stage.discriminator / stage.output.filename()
                    shutil.copy(chosen, context.folder)
                elif use not in WAITING:
                    stage.run(context)

    def context(self, name):
        return replace(self.place.context(self.stages[name], name), device=DEVICE)

    @contextmanager
    def part(self, name):
        """Allow the reads of a part of the run in this block."""
        with self.device.reading(READS[name]) as places:
            yield
        self.reads[name] |= places

    def train(self, stage, context):
        """Take optimizer steps on the pairs of a pool, and save the network."""
        spec, stream = stage.spec(), stage.stream(context, stage.pool)
        with self.part("pairing"):
            pool = stream.pool(0)
        trainer = stage.trainer(context, spec)
        with multiplying_in(stage.precision):
            for start in range(0, stage.pool, stage.batch_size):
                part = slice(start, start + stage.batch_size)
                trainer.step(pool.batch[part], pool.noise[part])
        with self.part("saving"):
            trainer.mean_loss()
            trainer.state()
            if stage.average.snapshot_images:
                trainer.average.snapshot(context.folder, trainer.images)
            stage.output(
                table=context.describe(stage.network),
                spec=spec,
                weights=trainer.average.model.state_dict(),
                images=trainer.images,
                contained={
                    name: context.read(name, NetworkFile) for name in references(stage.network)
                },
            ).save(context.folder / stage.output.filename())

    def levels(self, stage, context):
        """Write noise levels in place of fitted ones."""
        with self.part("loading"):
            denoiser = context.network(stage.denoiser)
            digest = network_digest(denoiser.module)
        start = resolve_start(stage.start, denoiser.module, None, KnownLevels.of(LEVELS))
        levels = FittedLevels(LEVELS, digest, name_of(stage.solver), start, 0.0, 0.0, 1)
        levels.save(context.folder / FittedLevels.filename())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A current directory with the data of the recipes, in which plugins are loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        root, plugins = tmp_path_factory.mktemp("second-device"), load_plugins()
        patch.chdir(root)
        write_published_data(root, patch)
        for module in ("genkit.testing.workplace", "genkit_stages.load"):
            patch.setattr(f"{module}.load_plugins", lambda: plugins)
        yield root


@pytest.fixture(scope="module")
def recipe(root):
    """Return the run of a shipped recipe, which is run once."""

    @functools.cache
    def run(name):
        folder = root / name.replace("/", "-")
        folder.mkdir()
        made = Run(name, folder)
        made.run()
        return made

    return run


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in SHIPPED]
)
def test_a_recipe_keeps_to_one_device_and_reads_nothing_from_it(recipe, name):
    recipe(name)


def test_the_places_that_read_are_those_of_the_recipes(recipe):
    seen = {part: set() for part in READS}
    for name in sorted(QUICK):
        for part, places in recipe(name).reads.items():
            seen[part] |= places
    assert seen == READS


@pytest.mark.parametrize("use", sorted(WAITING))
def test_a_stage_that_is_listed_cannot_run(recipe, use):
    run = recipe("edm_aot_few_steps" if use == "fit-schedule" else "cifar10/published_aot_dg")
    name = next(name for name, other in run.uses.items() if other == use)
    stage, context = run.stages[name], run.context(name)
    # In threads, no tensor can be copied to the second device.
    with run.device, pytest.raises((ReadError, NotImplementedError)):
        stage.run(context)


# --- faults -------------------------------------------------------------------------------


def on_cpu(x):
    """A constant that is not moved to the device of the data."""
    return x + torch.ones(x.shape)


def read(x):
    """A number on the host."""
    return x + x.mean().item()


def decide(x):
    """A branch on a value."""
    return x if x.mean() > 0 else -x


def select(x):
    """A shape that depends on values."""
    return x + x[x > 0].sum()


def look_up(x):
    """A copy of all values."""
    return x + float(x.cpu().mean())


FAULTS = [
    (on_cpu, WrongDeviceError),
    (read, ReadError),
    (decide, ReadError),
    (select, ReadError),
    (look_up, ReadError),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS)
def test_a_fault_is_an_error(fault, error):
    with SecondDevice():
        x = torch.linspace(-1, 2, 6).to(DEVICE)
        assert (x.device, (x + x).mean().device) == (DEVICE, DEVICE)
        with pytest.raises(error):
            fault(x)


PLACES = {
    "objective": (Denoising, "loss", "smoke"),
    "network": (ResidualMlp, "forward", "smoke"),
    "augmentation": (EdmAugmentation, "apply", "cifar10/uncond_edm"),
    "coupler": (Hungarian, "pair", "smoke"),
    "solver": (Heun, "solve", "smoke"),
    "guidance": (Extrapolation, "correction", "cfg"),
}


@pytest.mark.parametrize(("fault", "error"), FAULTS[:2])
@pytest.mark.parametrize("place", PLACES)
def test_a_component_with_a_fault_fails(root, place, fault, error, tmp_path, monkeypatch):
    cls, method, name = PLACES[place]
    original = getattr(cls, method)

    def faulty(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        if place == "coupler":
            fault(args[1])  # the noise
        elif place == "solver":
            return (replace(state, x=fault(state.x)) for state in result)
        else:
            return fault(result)
        return result

    monkeypatch.setattr(cls, method, faulty)
    with pytest.raises(error):
        Run(name, tmp_path).run()


def test_a_generator_of_the_cpu_draws_nothing_on_the_device():
    with SecondDevice(), pytest.raises(WrongDeviceError):
        torch.randn(3, device=DEVICE, generator=torch.Generator())


def test_the_latents_of_edm_cannot_be_drawn_here():
    """They come from generators of the device, which PyTorch makes only for one that exists."""
    with SecondDevice(), pytest.raises(RuntimeError):
        EdmLatents().draw((1, 2, 2), [0], 0, DEVICE, 0)


def test_an_amount_of_noise_is_not_read_from_the_device():
    class Negative(Shift):
        def churn(self, x, amount):
            return torch.tensor([0.5, -0.5]).to(DEVICE)

    with SecondDevice():
        x = torch.ones(2, 3).to(DEVICE)
        amounts = GuidedDenoiser(Gaussian(), guidance=[Negative(0.0, 0.0)]).churn(x, 0.0)
    assert amounts.value.tolist() == [0.5, pytest.approx(float("nan"), nan_ok=True)]


def test_a_place_that_may_read_is_recorded():
    with SecondDevice() as device:
        values = torch.ones(2).to(DEVICE)
        with device.reading({"tensors.py:require_finite"}) as places:
            require_finite(values, "value")
        assert places == {"tensors.py:require_finite"}
        with pytest.raises(ReadError):
            require_finite(values, "value")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_networks_are_not_compiled_here():
    """Nor does autocast to 16 bits have an effect; both run in ``test_gpu.py`` alone."""
    graphs = []

    def compiler(graph, inputs):
        graphs.append(graph)
        return graph.forward

    @torch.compile(backend=compiler)
    def double(values):
        return values + values

    double(torch.ones(2))
    assert len(graphs) == 1
    with SecondDevice():
        double(torch.ones(2).to(DEVICE))
    assert len(graphs) == 1
