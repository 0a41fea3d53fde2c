"""The laws of their kind, over every component that any installed plugin registers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from genkit import testing
from genkit.latents import Derived
from genkit.plugin.manager import load_plugins
from genkit.random import generator, seeded
from genkit.recipe.decode import component
from genkit.sample import sample
from genkit.settings import setting_of
from genkit.testing.elsewhere import check_processes
from genkit.types import Batch, DataSpec

REGISTRY = load_plugins().registry

EXACT = {"conditional", "hungarian", "partitioned", "pot-exact"}
"""The couplers whose pairs have the least total cost, under their restrictions."""

SMALL = {"channels": 64, "blocks": 1}
"""Settings of a small network, where it has them."""

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
    testing.check_schedule(made(entry))


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
    testing.check_preconditioner(made(entry))


@pytest.mark.parametrize("entry", every("sigma-distribution"))
def test_sigma_distributions(entry):
    testing.check_sigma_distribution(made(entry))


@pytest.mark.parametrize("entry", every("denoiser"))
def test_denoisers(entry):
    testing.check_denoiser(small(entry), IMAGES)


@pytest.mark.parametrize("entry", every("discriminator"))
def test_discriminators(entry):
    testing.check_discriminator(made(entry), IMAGES)


@pytest.mark.parametrize("entry", every("classifier"))
def test_classifiers(entry):
    testing.check_classifier(made(entry), IMAGES)


@pytest.mark.parametrize("entry", every("objective"))
def test_objectives(entry):
    objective = made(entry)
    fits = (e for e in REGISTRY.entries() if issubclass(REGISTRY.load(e), objective.trains))
    with seeded(0):
        model = small(next(fits)).build(IMAGES)
    g = generator(0, "test")
    batch = Batch(
        torch.rand((4, *IMAGES.shape), generator=g) * 2 - 1,
        labels=torch.arange(4),
        sources=torch.arange(4) % 2,
        quantile=torch.rand(4, generator=g, dtype=torch.float64),
    )
    testing.check_objective(objective, model, batch)


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
