"""Check that the parts of a training fit each other and the data, before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import torch

from genkit.blame import require_method
from genkit.designs import references
from genkit.errors import Code, DataError, Problem
from genkit.interfaces import (
    AnyCoupler,
    Augmentation,
    Callback,
    DatasetCoupler,
    Denoiser,
    Design,
    Network,
    Objective,
    Trained,
)
from genkit.networks import NetworkInputs, without_memory
from genkit.types import DataSpec


def problems_of(
    network: Network,
    objective: Objective,
    coupler: AnyCoupler,
    augmentation: Augmentation | None,
    spec: DataSpec | None,
    contained: Mapping[str, Design],
) -> Iterator[Problem]:
    """Yield what does not fit, by the settings of the train stage.

    Args:
        network: to train.
        objective: its loss.
        coupler: assigns noise to images.
        augmentation: changes the images.
        spec: of the data, once it is augmented; None where the data cannot be read.
        contained: known networks of earlier stages that are part of it, by their ids.
    """
    yield from _trained(network, objective)
    yield from _augmented(network, augmentation)
    if spec is not None:
        yield from _attributes(network, objective, coupler, spec)
        if not network.class_conditional or spec.classes:
            yield from _built(network, spec, contained)


def skewed_noise(coupler: AnyCoupler) -> Iterator[Problem]:
    """Yield a problem where the paired noise is not N(0, I), as that of the sampler is."""
    if not coupler.preserves_noise_marginal:
        yield Problem(
            ("coupler",),
            "does not declare that its paired noise is N(0, I), from which sampling starts",
            "choose another, or write accept_skewed_noise = true if it is meant; a coupler of your "
            "own declares bijective or preserves_noise_marginal where it holds",
            Code.SKEWED_NOISE,
        )


def skewed_conditions(
    network: Network, objective: Objective, coupler: AnyCoupler
) -> Iterator[Problem]:
    """Yield a problem where the noise is not N(0, I) given what the network is conditioned on."""
    conditions = objective.conditions | ({"labels"} if network.class_conditional else set())
    skewed = sorted(conditions - coupler.preserves_conditional_prior)
    if skewed:
        by = ", ".join(f'"{"label" if name == "labels" else name}"' for name in skewed)
        parted = coupler.preserves_noise_marginal and not isinstance(coupler, DatasetCoupler)
        yield Problem(
            ("coupler",),
            f"pairs across {' and '.join(skewed)}, which the network is conditioned on: "
            "its noise would no longer be N(0, I) given the condition",
            (
                f'write coupler = {{ use = "partitioned", by = [{by}], inner = {{ ... }} }}, '
                if parted
                else f"choose a coupler that keeps to it, by = [{by}] where it has that, "
            )
            + "or accept_conditional_skew = true if it is meant",
            Code.SKEWED_NOISE,
        )


def callback_problems(
    callbacks: Sequence[Callback], design: Design, networks: Mapping[str, Design]
) -> Iterator[Problem]:
    """Yield why callbacks cannot observe the training of a network.

    Args:
        callbacks: callbacks of the stage, in its setting ``callbacks``.
        design: network under training, and its data.
        networks: networks that earlier stages write, by id.
    """
    named: dict[str, int] = {}
    for index, callback in enumerate(callbacks):
        key = ("callbacks", index)
        for problem in callback.check_training(design, networks):
            yield problem.under(*key)
        for name in dict.fromkeys(callback.names):
            if named.setdefault(name, index) != index:
                reason = f'gives "{name}", as callbacks[{named[name]}] does'
                yield Problem(key, reason, "leave one of the two out", Code.DUPLICATE)


def _trained(network: Network, objective: Objective) -> Iterator[Problem]:
    """A network that the objective has no loss for."""
    trained = objective.trains
    if isinstance(network, trained):
        return
    reason = f"{type(objective).__name__} trains a {trained.output.name}"
    if trained.output != network.output:
        yield Problem(("objective",), f"{reason}, and the network is a {network.output.name}")
        return
    needed = (trained.__doc__ or trained.__name__).partition("\n")[0].rstrip(".")
    yield Problem(
        ("objective",),
        f"{reason} of a certain kind, and {type(network).__name__} is none",
        f"choose {needed[0].lower()}{needed[1:]}",
    )


def _augmented(network: Network, augmentation: Augmentation | None) -> Iterator[Problem]:
    """Yield that a denoiser that does not take augment_labels would generate changed images."""
    if not augmentation or not augmentation.augment_labels or not isinstance(network, Denoiser):
        return
    if not network.takes_augment_labels:
        yield Problem(
            ("augmentation",),
            f"requires a network that takes augment_labels, got {type(network).__name__}, which "
            "would generate changed images",
            "choose a network that takes augment_labels, such as ddpmpp, or leave it out",
        )


def _attributes(
    network: Network, objective: Objective, coupler: AnyCoupler, spec: DataSpec
) -> Iterator[Problem]:
    """Yield the attributes that are required, such as labels, and that the data lacks."""
    if network.class_conditional and "labels" not in spec.attributes:
        yield Problem(
            ("network", "class_conditional"),
            "the data has no labels",
            "write class_conditional = false, or choose labelled data",
            Code.MISSING_ATTRIBUTE,
        )
    for name, needed in (("objective", objective.requires), ("coupler", coupler.requires)):
        if lacking := sorted(needed - spec.attributes):
            yield lacking_attributes(name, lacking)


def lacking_attributes(key: str, lacking: list[str]) -> Problem:
    """Return the problem of a setting that requires attributes that the data lacks."""
    return Problem(
        (key,),
        f"requires {' and '.join(lacking)}, but the data has none",
        "choose data that has them, or leave it out",
        Code.MISSING_ATTRIBUTE,
    )


def _built(network: Network, spec: DataSpec, contained: Mapping[str, Design]) -> Iterator[Problem]:
    """Build on no memory at all, to see whether the network takes this shape."""
    inner = [contained.get(name) for name in references(network)]
    if any(design is None or any(references(design.settings)) for design in inner):
        return  # a file of a network that contains others has names of its own for them
    meta = torch.device("meta")
    # A network that reads the values of what it contains cannot be built there.
    valueless = (NotImplementedError, RuntimeError, TypeError) if inner else ()
    try:
        with suppress(*valueless), without_memory():
            given = {
                name: Trained(design.settings, design.spec, design.settings.build(design.spec))
                for name, design in contained.items()
            }
            bound = network.bind(NetworkInputs(meta, given=given))
            require_method(network, bound, "build").build(spec)
    except DataError as error:
        yield Problem(("network",), str(error), code=error.code)
