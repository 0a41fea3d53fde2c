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
        LawBroken: with the law, and what was seen.
    """
    with require_pure(preconditioner, sigma=SIGMAS):
        found = {
            **preconditioner.coefficients(SIGMAS)._asdict(),
            "weight": preconditioner.weight(SIGMAS),
        }
    single = preconditioner.coefficients(SIGMAS[:1])._asdict()
    for name, values in found.items():
        law = f"value-per-level: {name} has one value for each noise level"
        require(values.shape == SIGMAS.shape, preconditioner, law, list(values.shape))
        law = f"finite: {name} is finite for noise levels from 1e-3 to 1e3"
        require(bool(values.isfinite().all()), preconditioner, law, values.tolist())
        if name in single:
            law = f"company: {name} does not depend on the other noise levels of a batch"
            same = torch.allclose(single[name], values[:1])
            require(same, preconditioner, law, (single[name].tolist(), values[:1].tolist()))
    positive = bool((found["weight"] > 0).all())
    law = "positive-weight: the weight of the loss is above 0"
    require(positive, preconditioner, law, found["weight"].tolist())
    for levels in (SIGMAS, SIGMAS.double().reshape(-1, 1)):
        rounded = preconditioner.round_sigma(levels)
        law = "rounding-keeps-type: round_sigma keeps the shape and type of the noise levels"
        same = rounded.shape == levels.shape and rounded.dtype == levels.dtype
        require(same, preconditioner, law, f"{rounded.dtype} {list(rounded.shape)}")
        law = "rounding-keeps-order: round_sigma keeps the order of noise levels"
        require(bool((rounded.diff(dim=0) >= 0).all()), preconditioner, law, rounded.tolist())
        law = "rounds-once: round_sigma does not change a noise level that it returned"
        same = torch.equal(preconditioner.round_sigma(rounded), rounded)
        require(same, preconditioner, law, rounded.tolist())
    low, high = preconditioner.sigma_range()
    require(0 <= low < high, preconditioner, "sigma-range: it rises", (low, high))


def check_noise_distribution(distribution: NoiseDistribution) -> None:
    """Check every law of a distribution of noise levels.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    u = torch.cat(
        [torch.tensor([1e-9]), torch.linspace(0.001, 0.999, 999), torch.tensor([1 - 1e-9])]
    ).double()
    u[-1] = 1 - 1e-9  # float32 rounds it to 1
    with require_pure(distribution, u=u):
        sigma = distribution.quantile(u)
    law = "level-per-quantile: there is one noise level for each quantile"
    require(sigma.shape == u.shape, distribution, law, list(sigma.shape))
    law = "levels-range: noise levels are finite and above 0"
    sound = bool((sigma.isfinite() & (sigma > 0)).all())
    require(sound, distribution, law, f"{float(sigma.min())} to {float(sigma.max())}")
    rising = bool((sigma.diff() >= 0).all())
    law = "levels-rise: a higher quantile has no lower noise level"
    require(rising, distribution, law, f"a fall of {float(-sigma.diff().min()):.3g}")


def check_denoiser(denoiser: Denoiser, spec: DataSpec, stages: Stages | None = None) -> None:
    """Check every law of a denoiser on data of a given shape.

    Args:
        denoiser: denoiser to check.
        spec: data on which it is built.
        stages: earlier stages by id, among them those of the networks that it contains.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    _check_network(denoiser, spec, _with_sigma, spec.shape, stages)


def check_discriminator(
    discriminator: Discriminator, spec: DataSpec, stages: Stages | None = None
) -> None:
    """Check every law of a discriminator on data of a given shape.

    Args:
        discriminator: discriminator to check.
        spec: data on which it is built.
        stages: earlier stages by id, among them those of the networks that it contains.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    _check_network(discriminator, spec, _with_sigma, (), stages)


def check_classifier(classifier: Classifier, spec: DataSpec) -> None:
    """Check every law of a classifier on data of a given shape, with classes.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    _check_network(classifier, spec, _clean, (spec.classes,))
    model = classifier.build(spec).eval()
    with torch.no_grad():
        features = model.features(items(spec, 3).data)  # type: ignore[operator]
        logits = model(items(spec, 3).data)
    law = "row-per-item: features are a matrix with a row for each item"
    require(features.ndim == 2 and len(features) == 3, classifier, law, list(features.shape))
    if callable(head := getattr(model, "head", None)):
        same = torch.allclose(head(features), logits, atol=1e-5)
        require(same, classifier, "head-of-features: it is classifier(x)", "other logits")


def check_objective(
    objective: Objective, model: nn.Module, batch: Batch, stages: Stages | None = None
) -> None:
    """Check every law of an objective.

    Args:
        objective: objective to check.
        model: module of a network that it can train.
        batch: items for training, with ``quantile`` set.
        stages: earlier stages to which it refers, by id.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    model = model.eval()
    noise = torch.randn(batch.data.shape, generator=generator(0, "laws of objectives"))
    with workplace(stages) as place:
        bound = objective.bind(place.holding(objective))
    with require_pure(objective, noise=noise, **tensors_of(batch)):
        loss = bound.loss(model, batch, noise, generator(0, "loss"))
    law = "loss-per-item: the loss is a float32 value for each item"
    sound = loss.dtype == torch.float32 and loss.shape == (len(batch),)
    require(sound, objective, law, f"{loss.dtype} {list(loss.shape)}")
    require(bool(loss.isfinite().all()), objective, "finite: the loss is finite", loss.tolist())
    loss.sum().backward()  # type: ignore[no-untyped-call]
    trained = any(p.grad is not None for p in model.parameters())
    require(trained, objective, "loss-gradient: the weights have one", "none")
    again = bound.loss(model, batch, noise, generator(0, "loss"))
    law = "same-again: the same arguments and generator state give the same loss"
    require(torch.equal(loss, again), objective, law, (loss.tolist(), again.tolist()))
    terms = objective.terms(tuple(batch.data.shape[1:]))
    law = "loss-terms: a loss is the mean of at least one term"
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
    law = "levels-range: noise_levels returns a finite level above 0 for each quantile, or None"
    sound = levels.shape == quantile.shape and bool((levels.isfinite() & (levels > 0)).all())
    require(sound, objective, law, levels.tolist())


class _Constant(nn.Module):
    """A denoiser that returns one item for any input."""

    def __init__(self, item: Tensor, preconditioner: Preconditioner | None) -> None:
        super().__init__()
        self._item = item
        self.preconditioner = preconditioner

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._item.expand(x.shape)


def _check_mean_is_best(
    objective: Objective, preconditioner: Preconditioner | None, batch: Batch, noise: Tensor
) -> None:
    """Check that of several constants, the mean of the items has the lowest loss."""
    quantile = torch.full((len(batch),), 0.5, dtype=torch.float64)
    there = replace(batch, quantile=quantile, augment_labels=None)
    mean, step = batch.data.mean(0), batch.data.std(0).mean() / 10

    def loss(item: Tensor) -> float:
        model = _Constant(item, preconditioner)
        return float(objective.loss(model, there, noise, generator(0, "loss")).double().sum())

    losses = [loss(mean + k * step) for k in (-1, 0, 1)]
    law = "mean-is-best: an objective that estimates_mean has its lowest loss at the mean"
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
    """Check a network without classes and, if the data has some, with them."""
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
        found = call(model, batch)
    law = f"output-shape: {spec} gives {list(item) or 'a number'} for each item"
    require(found.shape == (3, *item), chosen, law, list(found.shape))
    require(bool(found.isfinite().all()), chosen, "finite: the network's output is finite", found)
    with torch.no_grad():
        alone = call(model, batch[:1])
    require_per_item(chosen, "what an item gives", alone, found)
    with seeded(0):
        twin = bound.build(spec)
    weights, others = model.state_dict(), twin.state_dict()
    same = all(torch.equal(value, others[name]) for name, value in weights.items())
    law = "same-again: the same global seed gives the same initial weights"
    require(same, chosen, law, "others on a second build")
