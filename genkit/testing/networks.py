"""Contract tests of networks, preconditioners, noise distributions and objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from genkit.interfaces import (
    BoundNetwork,
    Classifier,
    Denoiser,
    Discriminator,
    Network,
    NoiseDistribution,
    Objective,
    Preconditioner,
    Stages,
)
from genkit.random import generator, seeded
from genkit.testing.laws import items, require, require_per_item, require_pure, tensors_of
from genkit.testing.workplace import workplace
from genkit.types import Batch, DataSpec

SIGMAS = torch.logspace(-3, 3, 13)
"""Noise levels at which preconditioners are checked."""


def check_preconditioner(preconditioner: Preconditioner) -> None:
    """Check every law of a preconditioner.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    with require_pure(preconditioner, sigma=SIGMAS):
        values_of = {
            **preconditioner.coefficients(SIGMAS)._asdict(),
            "weight": preconditioner.weight(SIGMAS),
        }
    single = preconditioner.coefficients(SIGMAS[:1])._asdict()
    for name, values in values_of.items():
        law = f"value-per-level: {name} has one value for each noise level"
        require(values.shape == SIGMAS.shape, preconditioner, law, list(values.shape))
        law = f"finite: {name} is finite for noise levels from 1e-3 to 1e3"
        require(bool(values.isfinite().all()), preconditioner, law, values.tolist())
        if name in single:
            law = f"company: {name} does not depend on the other noise levels of a batch"
            same = torch.allclose(single[name], values[:1])
            require(same, preconditioner, law, (single[name].tolist(), values[:1].tolist()))
    positive = bool((values_of["weight"] > 0).all())
    law = "positive-weight: the weight of the loss is above 0"
    require(positive, preconditioner, law, values_of["weight"].tolist())
    for levels in (SIGMAS, SIGMAS.double().reshape(-1, 1)):
        rounded = preconditioner.round_sigma(levels)
        law = "rounding-keeps-type: round_sigma keeps the shape and dtype of the noise levels"
        same = rounded.shape == levels.shape and rounded.dtype == levels.dtype
        require(same, preconditioner, law, f"{rounded.dtype} {list(rounded.shape)}")
        law = "rounding-keeps-order: round_sigma keeps the order of noise levels"
        require(bool((rounded.diff(dim=0) >= 0).all()), preconditioner, law, rounded.tolist())
        law = "rounds-once: round_sigma does not change a noise level that it returned"
        same = torch.equal(preconditioner.round_sigma(rounded), rounded)
        require(same, preconditioner, law, rounded.tolist())
    low, high = preconditioner.sigma_range()
    law = "sigma-range: sigma_range returns a min and a max with 0 <= min < max"
    require(0 <= low < high, preconditioner, law, (low, high))


def check_noise_distribution(distribution: NoiseDistribution) -> None:
    """Check every law of a distribution of noise levels.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    u = torch.cat(
        [torch.tensor([1e-9]), torch.linspace(0.001, 0.999, 999), torch.tensor([1 - 1e-9])]
    ).double()
    u[-1] = 1 - 1e-9  # float32 rounds it to 1
    with require_pure(distribution, u=u):
        sigma = distribution.quantile(u)
    law = "level-per-quantile: quantile returns one noise level for each u"
    require(sigma.shape == u.shape, distribution, law, list(sigma.shape))
    law = "levels-range: noise levels are finite and above 0"
    sound = bool((sigma.isfinite() & (sigma > 0)).all())
    require(sound, distribution, law, f"{float(sigma.min())} to {float(sigma.max())}")
    rising = bool((sigma.diff() >= 0).all())
    law = "levels-rise: noise levels do not decrease with u"
    require(rising, distribution, law, f"a decrease by {float(-sigma.diff().min()):.3g}")


def check_denoiser(denoiser: Denoiser, spec: DataSpec, stages: Stages | None = None) -> None:
    """Check every law of a denoiser on data of a given shape.

    Args:
        denoiser: denoiser to check.
        spec: shape and attributes of the data.
        stages: earlier stages by id, including those whose networks the denoiser contains.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    _check_network(denoiser, spec, _with_sigma, spec.shape, stages)


def check_discriminator(
    discriminator: Discriminator, spec: DataSpec, stages: Stages | None = None
) -> None:
    """Check every law of a discriminator on data of a given shape.

    Args:
        discriminator: discriminator to check.
        spec: shape and attributes of the data.
        stages: earlier stages by id, including those whose networks the discriminator contains.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    _check_network(discriminator, spec, _with_sigma, (), stages)


def check_classifier(classifier: Classifier, spec: DataSpec) -> None:
    """Check every law of a classifier on data of a given shape that has classes.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    _check_network(classifier, spec, _clean, (spec.classes,))
    model = classifier.build(spec).eval()
    with torch.no_grad():
        features = model.features(items(spec, 3).data)  # type: ignore[operator]
        logits = model(items(spec, 3).data)
    law = "row-per-item: features are a matrix with one row per item"
    require(features.ndim == 2 and len(features) == 3, classifier, law, list(features.shape))
    if callable(head := getattr(model, "head", None)):
        same = torch.allclose(head(features), logits, atol=1e-5)
        law = "head-of-features: head(features(x)) equals the logits of x"
        require(same, classifier, law, "different logits")


def check_objective(
    objective: Objective, model: nn.Module, batch: Batch, stages: Stages | None = None
) -> None:
    """Check every law of an objective.

    Args:
        objective: objective to check.
        model: module of a network that the objective can train.
        batch: items for training, with ``quantile`` set.
        stages: earlier stages to which the objective refers, by id.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    model = model.eval()
    noise = torch.randn(batch.data.shape, generator=generator(0, "laws of objectives"))
    with workplace(stages) as place:
        bound = objective.bind(place.holding(objective))
    with require_pure(objective, noise=noise, **tensors_of(batch)):
        loss = bound.loss(model, batch, noise, generator(0, "loss"))
    law = "loss-per-item: loss returns one float32 value per item"
    sound = loss.dtype == torch.float32 and loss.shape == (len(batch),)
    require(sound, objective, law, f"{loss.dtype} {list(loss.shape)}")
    require(bool(loss.isfinite().all()), objective, "finite: the loss is finite", loss.tolist())
    loss.sum().backward()  # type: ignore[no-untyped-call]
    trained = any(p.grad is not None for p in model.parameters())
    law = "loss-gradient: the loss has a gradient with respect to the weights"
    require(trained, objective, law, "no gradient")
    again = bound.loss(model, batch, noise, generator(0, "loss"))
    law = "same-again: the same arguments and generator state give the same loss"
    require(torch.equal(loss, again), objective, law, (loss.tolist(), again.tolist()))
    terms = objective.terms(tuple(batch.data.shape[1:]))
    law = "loss-terms: terms returns an integer of at least 1"
    require(type(terms) is int and terms >= 1, objective, law, terms)
    _check_levels(objective)
    if objective.estimates_mean:
        _check_mean_is_best(objective, getattr(model, "preconditioner", None), batch, noise)


def _check_levels(objective: Objective) -> None:
    quantile = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    with require_pure(objective, quantile=quantile):
        levels = objective.noise_levels(quantile)
    if levels is None:
        return
    law = "levels-range: noise_levels returns None, or a finite level above 0 for each quantile"
    sound = levels.shape == quantile.shape and bool((levels.isfinite() & (levels > 0)).all())
    require(sound, objective, law, levels.tolist())


class _Constant(nn.Module):
    """A denoiser that returns the same item for every input."""

    def __init__(self, item: Tensor, preconditioner: Preconditioner | None) -> None:
        super().__init__()
        self._item = item
        self.preconditioner = preconditioner

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._item.expand(x.shape)


def _check_mean_is_best(
    objective: Objective, preconditioner: Preconditioner | None, batch: Batch, noise: Tensor
) -> None:
    """Check that the mean of the items has a lower loss than other constant outputs."""
    quantile = torch.full((len(batch),), 0.5, dtype=torch.float64)
    there = replace(batch, quantile=quantile, augment_labels=None)
    mean, step = batch.data.mean(0), batch.data.std(0).mean() / 10

    def loss(item: Tensor) -> float:
        model = _Constant(item, preconditioner)
        return float(objective.loss(model, there, noise, generator(0, "loss")).double().sum())

    losses = [loss(mean + k * step) for k in (-1, 0, 1)]
    law = "mean-is-best: if estimates_mean is true, the mean of the items has the lowest loss"
    require(losses[1] < min(losses[0], losses[2]), objective, law, losses)


Call = Callable[[nn.Module, Batch], Tensor]


def _with_sigma(model: nn.Module, batch: Batch) -> Tensor:
    sigma = torch.tensor([0.05, 1.0, 40.0])[: len(batch)]
    result: Tensor = model(batch.data, sigma, batch.labels)
    return result


def _clean(model: nn.Module, batch: Batch) -> Tensor:
    result: Tensor = model(batch.data)
    return result


def _check_network(
    network: Network,
    spec: DataSpec,
    call: Call,
    item: tuple[int, ...],
    stages: Stages | None = None,
) -> None:
    """Check a network without class conditioning and, if the data has classes, with it."""
    with workplace(stages) as place:
        for conditional in (False, True) if spec.classes else (False,):
            chosen = replace(network, class_conditional=conditional)
            bound = chosen.bind(place.holding(chosen))
            _check_bound(chosen, bound, spec, call, item)


def _check_bound(
    chosen: Network, bound: BoundNetwork, spec: DataSpec, call: Call, item: tuple[int, ...]
) -> None:
    """Check the module that a network builds."""
    batch = items(spec, 3)
    with seeded(0):
        model = bound.build(spec).eval()
    with torch.no_grad(), require_pure(chosen, **tensors_of(batch)):
        result = call(model, batch)
    law = f"output-shape: for {spec}, the output for each item has shape {list(item)}"
    require(result.shape == (3, *item), chosen, law, list(result.shape))
    require(bool(result.isfinite().all()), chosen, "finite: the network's output is finite", result)
    with torch.no_grad():
        alone = call(model, batch[:1])
    require_per_item(chosen, "the output for an item", alone, result)
    with seeded(0):
        twin = bound.build(spec)
    weights, others = model.state_dict(), twin.state_dict()
    same = all(torch.equal(value, others[name]) for name, value in weights.items())
    law = "same-again: the same global seed gives the same initial weights"
    require(same, chosen, law, "different weights in the second build")
