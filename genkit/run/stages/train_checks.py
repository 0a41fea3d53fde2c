"""What the train stage refuses before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from genkit.errors import DataError, Problem
from genkit.interfaces import Denoiser
from genkit.types import DataSpec

if TYPE_CHECKING:
    from genkit.run.stages.train import Train


def problems_of(stage: Train) -> Iterator[Problem]:
    """Yield what does not go together in the settings of a stage."""
    if stage.micro_batch and stage.micro_batch > stage.batch_size:
        yield Problem(
            ("micro_batch",),
            f"{stage.micro_batch} is more than the batch of {stage.batch_size}",
            f"write {stage.batch_size} or less",
        )
    if not isinstance(stage.network, stage.objective.trains):
        yield _mismatch(stage)
    yield from _pool(stage)
    yield from _augmentation(stage)
    try:
        spec = stage.spec()
    except DataError:
        return  # reported where the data is named
    yield from _attributes(stage, spec)
    if not stage.network.class_conditional or spec.classes:
        yield from _build(stage, spec)


def _mismatch(stage: Train) -> Problem:
    """A network that the objective has no loss for."""
    trained, network = stage.objective.trains, stage.network
    reason = f"{type(stage.objective).__name__} trains a {trained.output}"
    if trained.output != network.output:
        return Problem(("objective",), f"{reason}, and the network is a {network.output}")
    needed = (trained.__doc__ or trained.__name__).partition("\n")[0].rstrip(".")
    return Problem(
        ("objective",),
        f"{reason} of a certain kind, and {type(network).__name__} is none",
        f"choose {needed[0].lower()}{needed[1:]}",
    )


def _pool(stage: Train) -> Iterator[Problem]:
    """Pools that are not drawn as the recipe says, and noise that is not the sampler's."""
    if stage.images_per_class is not None:
        if stage.coupler.whole_data:
            yield Problem(
                ("images_per_class",),
                "the coupler chooses among the whole data set, so that no pool is drawn",
                "leave it out",
            )
        elif stage.images_per_class > stage.pool:
            yield Problem(
                ("images_per_class",),
                f"{stage.images_per_class} is more than the pool of {stage.pool}",
                f"write {stage.pool} or less",
            )
    if not stage.coupler.preserves_noise_marginal and not stage.accept_skewed_noise:
        yield Problem(
            ("coupler",),
            "the noise that it pairs is no longer N(0, I), from which sampling starts",
            "choose another, or write accept_skewed_noise = true if it is meant",
        )


def _augmentation(stage: Train) -> Iterator[Problem]:
    """A denoiser that cannot be told how its images were changed would generate changed ones."""
    network, augmentation = stage.network, stage.augmentation
    if not augmentation or not augmentation.augment_labels or not isinstance(network, Denoiser):
        return
    if not network.takes_augment_labels:
        yield Problem(
            ("augmentation",),
            f"tells the network how images were changed, and {type(network).__name__} cannot be "
            "told: it would generate changed images",
            "choose a network that takes augment_labels, such as ddpmpp, or leave it out",
        )


def _attributes(stage: Train, spec: DataSpec) -> Iterator[Problem]:
    """Labels and sources: who needs them, who has them, who would skew them."""
    conditions = set(stage.objective.conditions)
    if stage.network.class_conditional:
        conditions.add("labels")
        if "labels" not in spec.attributes:
            yield Problem(
                ("network", "class_conditional"),
                "the data has no labels",
                "write class_conditional = false, or choose labelled data",
            )
    for name, needed in (
        ("objective", stage.objective.requires),
        ("coupler", stage.coupler.requires),
        ("images_per_class", {"labels"} if stage.images_per_class else set()),
    ):
        if lacking := sorted(needed - spec.attributes):
            yield Problem(
                (name,),
                f"needs {' and '.join(lacking)}, which the data has not",
                "choose data that has them, or leave it out",
            )
    skewed = sorted(conditions - stage.coupler.preserves_conditional_prior)
    if skewed and not stage.accept_label_blind:
        by = ", ".join(f'"{name.removesuffix("s")}"' for name in skewed)
        parted = stage.coupler.preserves_noise_marginal and not stage.coupler.whole_data
        yield Problem(
            ("coupler",),
            f"pairs across {' and '.join(skewed)}, which the network is conditioned on: "
            "its noise would no longer be N(0, I) given the condition",
            (
                f'write coupler = {{ use = "partitioned", by = [{by}], inner = {{ ... }} }}, '
                if parted
                else f"choose a coupler that keeps to it, by = [{by}] where it has that, "
            )
            + "or accept_label_blind = true if it is meant",
        )


def _build(stage: Train, spec: DataSpec) -> Iterator[Problem]:
    """Build on no memory at all, to see whether the network takes this shape."""
    try:
        with torch.device("meta"):
            stage.network.build(spec)
    except DataError as error:
        yield Problem(("network",), str(error))
