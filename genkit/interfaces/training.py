"""Bases of the components of training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from genkit.errors import Code, DataError, Problem
from genkit.interfaces.base import (
    Component,
    Context,
    Design,
    Inputs,
    Network,
    Stages,
    Trained,
)
from genkit.interfaces.binding import unbound
from genkit.settings import setting
from genkit.types import Batch, Measurement


class BoundObjective(Protocol):
    """Result of :meth:`Objective.bind`."""

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each item, see :meth:`Objective.loss`."""
        ...


class Objective(Component):
    """A training loss. Implements ``loss`` or ``bind``."""

    implements = ("loss", "bind")

    trains: ClassVar[type[Network]]
    """Base class of the networks that the objective can train."""

    conditions: ClassVar[frozenset[str]] = frozenset()
    """Subset of ``labels`` and ``realness`` on which the loss conditions, where the data has it."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """Attributes of a batch that the loss requires."""

    gradient_only: ClassVar[bool] = False
    """Whether the loss depends only on the gradient of a discriminator's output.

    A function of noise level and class may then be added to the output, whose sign and size have no
    meaning. So snapshots of the discriminator are compared by the mean of :meth:`loss` on held-out
    items, on the real ones only (with ``realness`` None) unless ``realness`` is in `requires`.
    """

    estimates_mean: ClassVar[bool] = False
    """Whether the posterior mean of the images, given ``(x, sigma, labels)``, minimizes the loss.

    If it is true, :meth:`loss` is also called with a network that returns this mean and has the
    preconditioner of the trained network. The result is a lower bound of the loss on the data.
    """

    def bind(self, inputs: Inputs) -> BoundObjective:
        """Return the object that computes the loss, with the artifacts of earlier stages loaded.

        Called once, before the first step.
        """
        return self

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each item, ``[B]`` float32.

        Args:
            model: module of the network.
            batch: ``[B]`` items, with ``quantile`` set.
            noise: ``[B, *shape]`` unit-variance noise that is paired with the items.
            generator: generator on the CPU, for random numbers besides ``batch.quantile``.
        """
        raise unbound(self, "loss")

    def noise_levels(self, quantile: Tensor) -> Tensor | None:
        """Return the noise levels ``[B]`` of items, or None if an item has no single noise level.

        By default None. The loss is reported by noise level if the result is not None.

        Args:
            quantile: ``[B]`` float64 values of ``Batch.quantile``, in (0, 1).
        """
        return None

    def terms(self, shape: tuple[int, ...]) -> int:
        """Return the number of terms whose mean is the loss of an item, 1 by default.

        Except for epsilon, Adam's steps do not depend on the scale of the loss. If published code
        sums over elements and the loss here is their mean, this method returns the number of
        elements. Epsilon is divided by it, so that the steps are those of the published code. With
        the mean, ``gradient_clip`` and the scale of float16 gradients are independent of the image
        size.

        Args:
            shape: shape of one item.
        """
        return 1


@dataclass(frozen=True, kw_only=True)
class Optimizer(Component):
    """Settings of an optimizer: learning rate, gradient clipping, and the update rule."""

    learning_rate: float = setting(1e-3, doc="maximum learning rate", above=0, at_most=1e30)
    learning_rate_ramp: int = setting(
        0,
        doc="number of images over which the learning rate rises from 0; 0 for no ramp",
        at_least=0,
    )
    learning_rate_decay: int = setting(
        0,
        doc="number of images after which the learning rate decreases with the inverse square "
        "root of the number of images; 0 for no decrease",
        at_least=0,
    )
    gradient_clip: float | None = setting(None, doc="maximum norm of the gradient", above=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if 0 < self.learning_rate_decay < self.learning_rate_ramp:
            yield Problem(
                ("learning_rate_decay",),
                f"must be at least learning_rate_ramp = {self.learning_rate_ramp}, got "
                f"{self.learning_rate_decay}: the decrease would begin before the ramp ends",
                "write a larger value, or a smaller learning_rate_ramp",
            )

    def rate(self, images: int) -> float:
        """Return the learning rate after a number of training images.

        The decay is that of EDM2 (arXiv 2312.02696, eq. 67).
        """
        ramp = min(images / self.learning_rate_ramp, 1.0) if self.learning_rate_ramp else 1.0
        past = max(images / self.learning_rate_decay, 1.0) if self.learning_rate_decay else 1.0
        return self.learning_rate * ramp / math.sqrt(past)

    @abstractmethod
    def build(self, parameters: Sequence[nn.Parameter], terms: int) -> torch.optim.Optimizer:
        """Return the optimizer of a network's parameters.

        The trainer sets the learning rate before each step and clips the gradient. A step with a
        loss or gradient that is not finite must have no effect. Fused optimizers of torch check
        this on the device; for others, the trainer copies weights and state before each step and
        restores them. So the state must consist of tensors that all exist after the first step,
        which the trainer checks.

        Args:
            parameters: parameters of the network, on the training device.
            terms: number of terms whose mean is the loss, see :meth:`Objective.terms`. Constants
                relative to the gradient, such as Adam's epsilon, must be divided by it.
        """


class RunningAverage(ABC):
    """An average of the weights of a network, updated during training."""

    model: nn.Module
    """The network with averaged weights, in eval mode, with gradients disabled.

    The trainer saves its state, and later stages use it.
    """

    snapshot_images: int = 0
    """Number of images between two calls of :meth:`snapshot`; 0 for no calls."""

    @abstractmethod
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        """Update the average with the weights of ``model``, without synchronization.

        Args:
            model: the network after its optimizer step.
            images: number of images before this batch.
            batch_size: number of images in this batch.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the state for :meth:`restore`, in addition to the state dict of :attr:`model`."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore a result of :meth:`state` bit for bit.

        Raises:
            KeyError: the state is that of different settings or of a different network.
        """
        return

    def snapshot(self, folder: Path, images: int) -> None:
        """Write a snapshot of the average after ``images`` images to the folder of the stage."""
        return


class Average(Component):
    """Settings of an average of the weights over a training run."""

    reconstructible: ClassVar[bool] = False
    """Whether :mod:`genkit.parts.power_averages` can combine the snapshots of the average."""

    @abstractmethod
    def build(self, model: nn.Module) -> RunningAverage:
        """Return an average that starts with the weights of ``model``."""


class NoiseDistribution(Component):
    """The distribution of noise levels in training."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return the quantiles of the noise level for probabilities ``u``, float64 in (0, 1)."""

    def levels(self, batch: Batch) -> Tensor:
        """Return the noise level of each item, ``[B]`` float32.

        Raises:
            DataError: the batch has no ``quantile``.
        """
        if batch.quantile is None:
            raise DataError(
                "Batch.quantile must be a tensor, got None; draw it with "
                "torch.rand(N, dtype=torch.float64)",
                Code.MISSING_ATTRIBUTE,
            )
        return self.quantile(batch.quantile).float()


@dataclass(frozen=True)
class TrainingState:
    """State of a training run, as passed to callbacks.

    Attributes:
        images: number of images so far.
        total: number of images of the whole training run.
        network: copy of the trained network, in eval mode, with gradients disabled.
        averaged: copy of the network with averaged weights, in eval mode, with gradients disabled.
    """

    images: int
    total: int
    network: Trained
    averaged: Trained


TrainingFunction = Callable[[TrainingState], Mapping[str, float] | Measurement | None]
"""Function of the state of a training run, which returns scores by name, or None."""


class BoundCallback(Protocol):
    """Result of :meth:`Callback.bind`."""

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return scores and pictures of a training run, see :meth:`Callback.call`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Callback(Component):
    """Observes a training run. Implements ``call`` or ``bind``.

    A callback changes no result and is not part of the fingerprint: the networks are copies, random
    state and precision are restored after a call, and no pool is coupled meanwhile. It is called
    only on rank 0. An error ends the run, except that a DataError with the code ``not-finite`` is a
    warning, since an untrained network may give samples that are not finite.
    """

    implements: ClassVar[tuple[str, ...]] = ("call", "bind")

    every: int = setting(
        doc="number of images between two calls; the last call is after training", at_least=1
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scores and pictures, unique among the callbacks of a stage."""
        return ()

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield a problem if the callback cannot observe the training of a network.

        Called before anything runs.

        Args:
            design: settings and data of the network.
            networks: networks that earlier stages write, by id, except those of unknown data.
        """
        return iter(())

    def bind(self, context: Context) -> BoundCallback:
        """Return the object that is called, with the artifacts of earlier stages loaded.

        Called before the first step, each time that the stage starts or resumes.
        """
        return self

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return scores and pictures of a training run. A pure function that writes nothing.

        The stage logs the scores, overwrites ``NAME.png`` with each picture, and passes both to
        the trackers. Warnings are printed once.

        Args:
            training: state of the training run.
            context: context of a single process, whose seeds are independent of those of training.
        """
        raise unbound(self, "call")
