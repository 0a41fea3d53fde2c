"""Checks that the components of the stage ``train`` are compatible with each other and the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import torch
from torch import nn

from genkit.blame import require_method
from genkit.designs import components, outermost, references
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import (
    AnyCoupler,
    Augmentation,
    Average,
    Callback,
    DatasetCoupler,
    Denoiser,
    Design,
    Network,
    NoiseDistribution,
    Objective,
    Stages,
    Trained,
)
from genkit.networks import NetworkInputs
from genkit.parts.meta import TooLargeError, without_memory
from genkit.settings import quote
from genkit.types import DataSpec
from genkit_stages.size_checks import build_problem, training_problems

_MIN_LEVEL, _MAX_LEVEL = 1e-18, 1e18
"""Range of noise levels in training: weights of losses contain their squares, in float32."""
_TAIL = 1e-9
"""Probability of the levels on each side that are not compared with the range. Chosen: a training
draws fewer levels."""


def problems_of(
    network: Network,
    objective: Objective,
    coupler: AnyCoupler,
    augmentation: Augmentation | None,
    spec: DataSpec | None,
    contained: Mapping[str, Design],
    average: Average,
    earlier: Stages,
) -> Iterator[Problem]:
    """Yield a problem for each incompatibility; keys are settings of the stage ``train``.

    Args:
        network: network to train.
        objective: training loss.
        coupler: coupler of images and noise.
        augmentation: augmentation of the images, or None.
        spec: specification of the augmented data; None if the data cannot be read.
        contained: designs of earlier networks that the network contains, keyed by stage id.
        average: average of the weights.
        earlier: earlier stages.
    """
    yield from _network_type(network, objective)
    yield from _noise_levels(objective)
    yield from _augment_labels(network, augmentation)
    if spec is not None:
        yield from _attributes(network, objective, coupler, spec)
        reported = any(any(part.check(earlier)) for part in components(network))
        if not reported and (not network.class_conditional or spec.classes):
            yield from _build(network, spec, contained, average)


def skewed_noise(coupler: AnyCoupler) -> Iterator[Problem]:
    """Yield a problem if the coupler does not declare that its assigned noise is N(0, I)."""
    if not coupler.preserves_noise_marginal:
        yield Problem(
            ("coupler",),
            "must declare that the noise of its pairs is N(0, I), from which sampling starts",
            "choose another coupler, or write accept_skewed_noise = true if this is intended; in "
            "your own coupler, declare bijective or preserves_noise_marginal if it is true",
            Code.SKEWED_NOISE,
        )


def skewed_conditions(
    network: Network, objective: Objective, coupler: AnyCoupler, spec: DataSpec
) -> Iterator[Problem]:
    """Yield a problem if the noise is not N(0, I) given the condition of the network."""
    conditions = objective.conditions & spec.attributes
    conditions |= {"labels"} if network.class_conditional else set()
    skewed = sorted(conditions - coupler.preserves_conditional_prior)
    if skewed:
        # All conditions: a coupler by the missing ones alone would couple across the others.
        by = quote(["label" if name == "labels" else name for name in sorted(conditions)])
        partitionable = coupler.preserves_noise_marginal and not isinstance(coupler, DatasetCoupler)
        yield Problem(
            ("coupler",),
            f"must not couple across {' and '.join(skewed)}, on which the network is conditioned: "
            "given the condition, the noise would not be N(0, I)",
            (
                f'write coupler = {{ use = "partitioned", by = {by}, inner = {{ ... }} }}, '
                if partitionable
                else f"write by = {by} if the coupler has this setting, choose another coupler, "
            )
            + "or write accept_conditional_skew = true if this is intended",
            Code.SKEWED_NOISE,
        )


def class_problems(
    images: int, coupler: AnyCoupler, pool: int, spec: DataSpec | None
) -> Iterator[Problem]:
    """Yield a problem if pools cannot consist of consecutive images of each class.

    Args:
        images: setting ``images_per_class``.
        coupler: coupler of images and noise.
        pool: number of images of a pool.
        spec: specification of the data; None if it cannot be read.
    """
    if isinstance(coupler, DatasetCoupler):
        yield Problem(
            ("images_per_class",),
            "requires a coupler of pools, got one that chooses from the whole data set",
            "remove images_per_class",
        )
    elif images > pool:
        yield Problem(
            ("images_per_class",),
            f"must be at most the pool size, {pool}, got {images}",
            f"write at most {pool}",
        )
    if spec is not None and "labels" not in spec.attributes:
        yield lacking_attributes("images_per_class", ["labels"])


def callback_problems(
    callbacks: Sequence[Callback], design: Design, networks: Mapping[str, Design]
) -> Iterator[Problem]:
    """Yield a problem for each callback that cannot observe the training of a network.

    Args:
        callbacks: callbacks of the stage, in its setting ``callbacks``.
        design: design of the network in training.
        networks: designs of the networks that earlier stages write, keyed by stage id.
    """
    named: dict[str, int] = {}
    for index, callback in enumerate(callbacks):
        key = ("callbacks", index)
        for problem in callback.check_training(design, networks):
            yield problem.under(*key)
        for name in dict.fromkeys(callback.names):
            if named.setdefault(name, index) != index:
                reason = f'must not return "{name}", which callbacks[{named[name]}] returns'
                yield Problem(key, reason, "remove one of the two", Code.DUPLICATE)


def _network_type(network: Network, objective: Objective) -> Iterator[Problem]:
    """Yield a problem if the objective cannot train the network."""
    required = objective.trains
    if isinstance(network, required):
        return
    reason = f"{type(objective).__name__} trains a {required.output.name}"
    if required.output != network.output:
        yield Problem(("objective",), f"{reason}, but the network is a {network.output.name}")
        return
    summary = (required.__doc__ or required.__name__).partition("\n")[0].rstrip(".")
    yield Problem(
        ("objective",),
        f"{reason} of type {required.__name__}, but the network is a {type(network).__name__}",
        f"choose {summary[0].lower()}{summary[1:]}",
    )


def _noise_levels(objective: Objective) -> Iterator[Problem]:
    """Yield a problem for a distribution of noise levels whose squares float32 cannot represent."""
    for key, distribution in outermost(objective, NoiseDistribution):
        lowest, highest = _MIN_LEVEL, _MAX_LEVEL
        with suppress(Exception):  # errors of third-party code are reported by the run
            ends = distribution.quantile(torch.tensor([_TAIL, 1 - _TAIL], dtype=torch.float64))
            lowest, highest = ends.tolist()
        if not ((lowest == 0 or lowest >= _MIN_LEVEL) and highest <= _MAX_LEVEL):
            yield Problem(
                ("objective", *key),
                f"must draw noise levels that are 0, or from {_MIN_LEVEL:g} to {_MAX_LEVEL:g}, got "
                f"levels from {lowest:.3g} to {highest:.3g}",
                "write settings closer to the defaults",
                Code.OUT_OF_RANGE,
            )


def _augment_labels(network: Network, augmentation: Augmentation | None) -> Iterator[Problem]:
    """Yield a problem if a denoiser without augment_labels would generate augmented images."""
    if not augmentation or not augmentation.augment_labels or not isinstance(network, Denoiser):
        return
    if not network.takes_augment_labels:
        yield Problem(
            ("augmentation",),
            f"requires a network that takes augment_labels, got {type(network).__name__}, which "
            "would generate augmented images",
            "choose such a network, for example ddpmpp, or remove the augmentation",
        )


def _attributes(
    network: Network, objective: Objective, coupler: AnyCoupler, spec: DataSpec
) -> Iterator[Problem]:
    """Yield a problem for each setting that requires attributes missing in the data."""
    if network.class_conditional and "labels" not in spec.attributes:
        yield Problem(
            ("network", "class_conditional"),
            "requires labels, but the data has none",
            "write class_conditional = false, or choose labeled data",
            Code.MISSING_ATTRIBUTE,
        )
    for name, required in (("objective", objective.requires), ("coupler", coupler.requires)):
        if lacking := sorted(required - spec.attributes):
            yield lacking_attributes(name, lacking)


def lacking_attributes(key: str, lacking: list[str]) -> Problem:
    """Return the problem of a setting that requires attributes missing in the data."""
    return Problem(
        (key,),
        f"requires {' and '.join(lacking)}, but the data has none",
        "choose data that has them, or another component",
        Code.MISSING_ATTRIBUTE,
    )


def _build(
    network: Network, spec: DataSpec, contained: Mapping[str, Design], average: Average
) -> Iterator[Problem]:
    """Build the network on the meta device, which checks shapes and sizes without memory."""
    inner = [contained.get(name) for name in references(network)]
    if any(design is None or any(references(design.settings)) for design in inner):
        return  # the file of a contained network may use other ids for the networks in it
    model, meta = None, torch.device("meta")
    # Building fails if the network reads values of tensors of a contained network.
    valueless = (NotImplementedError, RuntimeError, TypeError) if inner else ()
    try:
        with suppress(*valueless), without_memory():
            given = {
                name: Trained(design.settings, design.spec, design.settings.build(design.spec))
                for name, design in contained.items()
            }
            bound = network.bind(NetworkInputs(meta, given=given))
            model = require_method(network, bound, "build").build(spec)
    except TooLargeError as error:
        yield build_problem(network, error)
    except DataError as error:
        yield Problem(("network",), str(error), code=error.code)
    if isinstance(model, nn.Module):
        yield from training_problems(network, model, average)
