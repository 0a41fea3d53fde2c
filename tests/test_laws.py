"""The laws of their kind, over every component that any installed plugin registers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from genkit import testing
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import kinds_of
from genkit.random import generator, seeded
from genkit.recipe.decode import component
from genkit.settings import setting_of
from genkit.testing.elsewhere import check_processes
from genkit.types import Batch, DataSpec

REGISTRY = load_plugins().registry

EXACT = {"conditional", "hungarian", "partitioned", "pot-exact"}
"""The couplers whose pairs have the least total cost, under their restrictions."""

IMAGES = DataSpec((1, 8, 8), classes=10)


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
    testing.check_schedule(made(entry))


@pytest.mark.parametrize("entry", every("solver"))
def test_solvers(entry):
    testing.check_solver(made(entry))


@pytest.mark.parametrize("entry", every("preconditioner"))
def test_preconditioners(entry):
    testing.check_preconditioner(made(entry))


@pytest.mark.parametrize("entry", every("sigma-distribution"))
def test_sigma_distributions(entry):
    testing.check_sigma_distribution(made(entry))


@pytest.mark.parametrize("entry", every("denoiser"))
def test_denoisers(entry):
    testing.check_denoiser(made(entry), IMAGES)


@pytest.mark.parametrize("entry", every("discriminator"))
def test_discriminators(entry):
    testing.check_discriminator(made(entry), IMAGES)


@pytest.mark.parametrize("entry", every("classifier"))
def test_classifiers(entry):
    testing.check_classifier(made(entry), IMAGES)


@pytest.mark.parametrize("entry", every("objective"))
def test_objectives(entry):
    objective = made(entry)
    (kind,) = kinds_of(objective.trains)
    with seeded(0):
        model = made(REGISTRY.entries(kind)[0]).build(IMAGES)
    g = generator(0, "test")
    batch = Batch(
        torch.rand((4, *IMAGES.shape), generator=g) * 2 - 1,
        labels=torch.arange(4),
        sources=torch.arange(4) % 2,
        quantile=torch.rand(4, generator=g, dtype=torch.float64),
    )
    testing.check_objective(objective, model, batch)


@pytest.mark.parametrize("entry", self_contained("dataset"))
def test_datasets(entry):
    testing.check_dataset(made(entry))


@pytest.mark.parametrize("entry", every("augmentation"))
def test_augmentations(entry):
    testing.check_augmentation(made(entry))
