"""The laws of their kind, over every component that any installed plugin registers."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from genkit import testing
from genkit.errors import Code
from genkit.interfaces import Sampler
from genkit.latents import Derived
from genkit.plugin.manager import OURS, load_plugins
from genkit.random import generator, seeded
from genkit.recipe.decode import component
from genkit.sample import bind_schedule, sample
from genkit.settings import setting_of
from genkit.testing.elsewhere import check_processes
from genkit.testing.workplace import workplace
from genkit.types import Batch, DataSpec
from genkit_dg.adm_classifier import AdmClassifier
from published_adm import write_published

pytestmark = pytest.mark.usefixtures("coarse_pictures")

REGISTRY = load_plugins().registry

EXACT = {"conditional", "hungarian", "partitioned", "pot-exact"}
"""The couplers whose pairs have the least total cost, under their restrictions."""

SMALL = {"channels": 64, "blocks": 1}
"""Settings of a small network, where it has them."""

OF_CLASSES = {"class-agreement", "frechet-by-class", "inception-score"}
"""The metrics that require a classifier or labels."""

IMAGES = DataSpec((1, 8, 8), classes=10)

MOONS = {"use": "moons", "items": 60}

SHORT = {"use": "train", "images": 96, "batch_size": 32}
"""Settings of a training that takes a moment."""

STAGES = {
    "train": {
        **SHORT,
        "data": MOONS,
        "network": {"use": "mlp", "width": 8, "blocks": 1},
        "objective": {"use": "denoising"},
    },
    "load": {"use": "load", "path": "trained.safetensors"},
    "average": {"use": "average", "training": "averaged", "length": 0.08},
    "fit-schedule": {"use": "fit-schedule", "denoiser": "train", "data": MOONS, "steps": 3},
    "sample": {
        "use": "sample",
        "denoiser": "train",
        "count": 12,
        "batch_size": 4,
        "schedule": {"use": "edm", "steps": 3},
    },
    "evaluate": {
        "use": "evaluate",
        "samples": "sample",
        "data": MOONS,
        "metrics": [{"use": "frechet"}, {"use": "curvature", "count": 4}],
    },
    "sweep": {
        "use": "sweep",
        "samples": "sample",
        "data": MOONS,
        "count": 8,
        "vary": {"schedule": {"steps": [2, 3]}},
        "metrics": [{"use": "frechet"}],
    },
    "averaged": {
        **SHORT,
        "data": MOONS,
        "network": {"use": "mlp", "width": 8, "blocks": 1},
        "objective": {"use": "denoising"},
        "average": {"use": "power-ema", "snapshot_images": 32},
    },
    "discriminate": {
        **SHORT,
        "data": {"use": "real-and-fake", "real": MOONS, "fakes": "sample", "held_out": 0.25},
        "network": {"use": "mlp-discriminator", "width": 8},
        "objective": {"use": "discrimination"},
        "coupler": {"use": "partitioned", "by": ["realness"]},
        "average": {"use": "ema", "snapshot_images": 48},
    },
    "choose-discriminator": {
        "use": "choose-discriminator",
        "discriminator": "discriminate",
        "count": 64,
    },
    "fit-weight": {
        "use": "fit-weight",
        "discriminator": "discriminate",
        "denoiser": "train",
        "count": 32,
        "schedule": {"use": "edm", "steps": 3},
    },
    "train-unet": {
        **SHORT,
        "data": {"use": "digits"},
        "network": {"use": "ddpmpp", **SMALL},
        "objective": {"use": "denoising"},
    },
    "classify-noisy": {
        **SHORT,
        "data": {"use": "digits"},
        "network": {"use": "noisy-classifier", **SMALL, "multipliers": [1], "attention": [8]},
        "objective": {"use": "classification"},
    },
    "classify": {
        **SHORT,
        "data": {"use": "digits"},
        "network": {"use": "cnn-classifier", "channels": 4},
        "objective": {"use": "classification"},
    },
}
"""Small stages by id, each with the earlier ones before it."""

JUDGE = {"use": "classifier", "classifier": "classify"}

SETTINGS = {
    "discriminator-denoiser-encoder": {"denoiser": "train-unet", **SMALL},
    "discriminator-adm-classifier": {"classifier": "classify-noisy", **SMALL},
    "objective-guided-denoising": {"denoiser": "train-unet"},
    "guidance-discriminator": {"discriminator": "discriminate"},
    "guidance-autoguidance": {"guide": "train"},
    "extractor-classifier": {"classifier": "classify"},
    "metric-class-agreement": {"extractor": JUDGE},
    "metric-cmmd": {"extractor": {"use": "pixels"}},
    "metric-inception-score": {"extractor": JUDGE},
    "preconditioner-coupled": {"covariance": 0.2},
    "schedule-fitted": {"levels": "fit-schedule", "steps": 3},
}
"""Settings of components that have no default for one."""


def earlier(*ids):
    return {name: component(REGISTRY, "stage", STAGES[name]) for name in ids}


def ours(kind):
    """Return genkit's own components; those of other distributions are checked in their tests."""
    entries = [e for e in REGISTRY.entries(kind) if e.owner.distribution == OURS]
    return [pytest.param(e, id=e.name) for e in entries]


def installed(entry, part):
    """Skip a component whose extra is not installed."""
    missing = [p for p in part.check({}) if p.code is Code.MISSING_PACKAGE]
    if missing:
        pytest.skip(f"{entry.name}: {missing[0]}")
    return part


def every(kind=None):
    return [pytest.param(e, id=f"{e.kind}-{e.name}") for e in REGISTRY.entries(kind)]


def self_contained(kind):
    """Return the components that need no file and no earlier stage."""

    def needs(field):
        described = setting_of(field)
        missing = dataclasses.MISSING
        given = (field.default, field.default_factory) != (missing, missing)
        return not (given or described.use)

    return [
        pytest.param(e, id=e.name)
        for e in REGISTRY.entries(kind)
        if not any(needs(field) for field in dataclasses.fields(REGISTRY.load(e)))
    ]


def made(entry, **table):
    return component(REGISTRY, entry.kind, {"use": entry.name, **table})


def small(entry):
    """Return a network whose laws are a matter of seconds."""
    known = {field.name for field in dataclasses.fields(REGISTRY.load(entry))}
    return made(entry, **{name: value for name, value in SMALL.items() if name in known})


@pytest.mark.parametrize("entry", every())
def test_components(entry):
    testing.check_component(REGISTRY.load(entry))


@pytest.mark.parametrize("entry", self_contained("coupler"))
def test_couplers(entry):
    minimises = "euclidean" if entry.name in EXACT else None
    testing.check_coupler(made(entry), minimises=minimises, another_process=False)


def test_couplers_pair_alike_in_another_process():
    check_processes([made(param.values[0]) for param in self_contained("coupler")])


@pytest.mark.parametrize("entry", every("schedule"))
def test_schedules(entry):
    schedule = made(entry, **SETTINGS.get(f"schedule-{entry.name}", {}))
    if schedule.bound:
        testing.check_schedule(schedule)
        return
    with workplace(earlier("train", "fit-schedule")) as place:
        inputs = place.holding(schedule)
        solver = component(REGISTRY, "solver", {"use": "heun"})
        sampler = Sampler(inputs.network("train").module, None, solver, "noise")
        testing.check_schedule(bind_schedule(schedule, inputs, sampler), others=())


@pytest.mark.parametrize("entry", every("solver"))
def test_solvers(entry):
    testing.check_solver(made(entry))


@pytest.mark.parametrize("entry", every("solver"))
@pytest.mark.parametrize("s_churn", [0.0, 20.0])
def test_batch_size_and_order_change_samples_by_rounding_and_noise_by_nothing(entry, s_churn):
    if s_churn and "s_churn" not in {f.name for f in dataclasses.fields(REGISTRY.load(entry))}:
        pytest.skip("adds no noise")
    solver = made(entry, **({"s_churn": s_churn} if s_churn else {}))
    schedule = made(REGISTRY.entries("schedule")[0], steps=6)
    with seeded(0):
        (network,) = (e for e in REGISTRY.entries("denoiser") if e.name == "mlp")
        model = made(network, width=32, blocks=1).build(IMAGES).eval()
        torch.nn.init.normal_(model.network.out.weight, std=0.1)  # it starts at 0

    def drawn(indices):
        """The samples, and what the network saw first: the start with the first fresh noise."""
        seen = []
        handle = model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        draws = Derived().draw(IMAGES.shape, indices, 0, torch.device("cpu"), 0)
        found = sample(model, draws, schedule=schedule, solver=solver)
        handle.remove()
        return found.batch.data, seen[0]

    whole, noise = drawn(range(7))
    order = [6, 2, 0, 5, 1, 4, 3]
    parts = [drawn(order[:1]), drawn(order[1:4]), drawn(order[4:])]
    assert torch.equal(torch.cat([part[1] for part in parts]), noise[order])
    # One error chooses the steps of the whole batch in `adaptive`, and keeps to 1e-5 a step.
    allowed = 1e-3 if entry.name == "adaptive" else 1e-5
    found = torch.cat([part[0] for part in parts])
    torch.testing.assert_close(found, whole[order], rtol=allowed, atol=allowed)
    assert (whole[0] - whole[1]).abs().max() > 0.1


@pytest.mark.parametrize("entry", every("latents"))
def test_latents(entry):
    testing.check_latents(made(entry))


@pytest.mark.parametrize("entry", every("preconditioner"))
def test_preconditioners(entry):
    settings = SETTINGS.get(f"preconditioner-{entry.name}", {})
    testing.check_preconditioner(made(entry, **settings))


@pytest.mark.parametrize("entry", every("noise-distribution"))
def test_noise_distributions(entry):
    testing.check_noise_distribution(made(entry))


@pytest.mark.parametrize("entry", every("denoiser"))
def test_denoisers(entry):
    testing.check_denoiser(small(entry), IMAGES)


@pytest.mark.parametrize("entry", every("discriminator"))
def test_discriminators(entry):
    settings = SETTINGS.get(f"discriminator-{entry.name}", {})
    stages = earlier("train-unet", "classify-noisy") if settings else None
    testing.check_discriminator(made(entry, **settings), IMAGES, stages)


@pytest.mark.parametrize("entry", every("classifier"))
def test_classifiers(entry):
    testing.check_classifier(small(entry), IMAGES)


@pytest.mark.parametrize("entry", every("objective"))
def test_objectives(entry):
    settings = SETTINGS.get(f"objective-{entry.name}", {})
    objective = made(entry, **settings)
    fits = (e for e in REGISTRY.entries() if issubclass(REGISTRY.load(e), objective.trains))
    alone = next(e for e in fits if f"{e.kind}-{e.name}" not in SETTINGS)
    with seeded(0):
        model = small(alone).build(IMAGES)
    g = generator(0, "test")
    batch = Batch(
        torch.rand((4, *IMAGES.shape), generator=g) * 2 - 1,
        labels=torch.arange(4),
        realness=torch.arange(4) % 2,
        quantile=torch.rand(4, generator=g, dtype=torch.float64),
    )
    stages = earlier("train-unet") if settings else None
    testing.check_objective(objective, model, batch, stages)


@pytest.mark.parametrize("entry", every("optimizer"))
def test_optimizers(entry):
    testing.check_optimizer(made(entry))


@pytest.mark.parametrize("entry", every("average"))
def test_averages(entry):
    testing.check_average(made(entry))


@pytest.mark.parametrize("entry", self_contained("dataset"))
def test_datasets(entry):
    testing.check_dataset(made(entry))


@pytest.mark.parametrize("entry", every("augmentation"))
def test_augmentations(entry):
    testing.check_augmentation(made(entry))


@pytest.mark.parametrize("entry", ours("guidance"))
def test_guidance(entry):
    stages = earlier("train", "sample", "discriminate")
    guidance = made(entry, **SETTINGS.get(f"guidance-{entry.name}", {}))
    # A discriminator is bound only to the denoiser on which it was trained.
    denoiser = "train" if entry.name == "discriminator" else None
    testing.check_guidance(guidance, DataSpec((2,), classes=3), stages, denoiser)


@pytest.mark.parametrize("entry", ours("extractor"))
def test_extractors(entry):
    if entry.name in {"clip", "dinov2", "inception"}:
        pytest.skip("its weights are a file: see tests/plugins/genkit_metrics")
    extractor = installed(entry, made(entry, **SETTINGS.get(f"extractor-{entry.name}", {})))
    testing.check_extractor(extractor, IMAGES, earlier("classify"))


@pytest.mark.parametrize("entry", ours("metric"))
@pytest.mark.parametrize("spec", [DataSpec((2,)), IMAGES])
def test_metrics(entry, spec):
    settings = SETTINGS.get(f"metric-{entry.name}", {})
    if entry.name in OF_CLASSES and not spec.classes:
        pytest.skip("requires a classifier or labels")
    metric = made(entry, **settings)
    if any(metric.check_items(spec)):
        pytest.skip("does not measure such items")
    testing.check_metric(metric, spec, earlier("classify") if settings else None)


def test_a_metric_over_the_features_of_an_earlier_stage():
    metric = component(REGISTRY, "metric", {"use": "frechet", "extractor": JUDGE})
    testing.check_metric(metric, IMAGES, earlier("classify"))


@pytest.mark.parametrize("entry", ours("callback"))
def test_callbacks(entry):
    few = {"every": 32, "count": 6, "schedule": {"use": "edm", "steps": 2}}
    measured = {"metrics": [{"use": "frechet"}, {"use": "curvature", "count": 4}], "data": MOONS}
    callback = made(entry, **few, **(measured if entry.name == "score" else {}))
    network = component(REGISTRY, "denoiser", {"use": "mlp", "width": 8, "blocks": 1})
    testing.check_callback(callback, network, DataSpec((2,)))


def test_a_callback_over_the_features_of_an_earlier_stage():
    metrics = [{"use": "frechet", "extractor": JUDGE}]
    table = {"use": "score", "every": 32, "count": 6, "data": {"use": "digits"}, "metrics": metrics}
    network = component(REGISTRY, "denoiser", {"use": "mlp", "width": 8, "blocks": 1})
    callback = component(REGISTRY, "callback", table)
    testing.check_callback(callback, network, IMAGES, earlier("classify"))


@pytest.mark.parametrize("entry", ours("stage"))
def test_stages(entry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if entry.name == "load":
        with workplace(earlier("train")) as place:
            shutil.copy(place.root / "train" / "denoiser.safetensors", "trained.safetensors")
    before = {"fit-schedule": ["train"], "sample": ["train"], "average": ["averaged"]}
    before |= {name: ["train", "sample"] for name in ("evaluate", "sweep")}
    judging = ("choose-discriminator", "fit-weight")
    before |= {name: ["train", "sample", "discriminate"] for name in judging}
    (stage,) = earlier(entry.name).values()
    testing.check_stage(stage, earlier(*before.get(entry.name, [])))


@pytest.mark.parametrize("stage", ["discriminate", "classify"])
def test_the_training_of_other_networks(stage):
    testing.check_stage(*earlier(stage).values(), earlier("train", "sample"))


@pytest.mark.parametrize("entry", ours("importer"))
def test_importers(entry, edm_files, tmp_path):
    files = {
        "snapshot.pkl": edm_files.emitted(edm_files.snapshot(*edm_files.made_up())),
        "network-snapshot-0002097-0.050.pkl": edm_files.emitted(
            edm_files.edm2_snapshot(*edm_files.made_up_edm2())
        ),
        "training-state-000001.pt": edm_files.training_state(*edm_files.made_up()),
    }
    if entry.name == "adm-classifier":
        path = tmp_path / "4x4_classifier.pt"
        write_published(path, AdmClassifier(channels=64, multipliers=(1,), blocks=1), 4)
        files = {path.name: path.read_bytes()}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        testing.check_importer(made(entry), tmp_path / name)


@pytest.mark.parametrize("entry", ours("tracker"))
def test_trackers(entry, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    testing.check_tracker(installed(entry, made(entry)))
