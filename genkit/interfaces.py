"""Abstract bases of all components.

A component is a frozen dataclass. Its fields are what a recipe may set, each declared with
:func:`genkit.settings.setting`; a field whose type is one of these bases is a slot for another
component. Components hold settings, never state: that lives in the objects that they build.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

from genkit.artifacts import (
    Artifact,
    ClassifierFile,
    DenoiserFile,
    DiscriminatorFile,
    NetworkFile,
    Record,
    Samples,
    SamplingCost,
    Scores,
)
from genkit.artifacts.coupling import Coupling
from genkit.artifacts.statistics import Statistics
from genkit.errors import Code, DataError, Problem, UsageError
from genkit.fields import Settings
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import (
    SEED_LIMIT,
    Batch,
    Coefficients,
    DataSpec,
    Denoise,
    Draws,
    Measurement,
    Pairs,
    RandnLike,
    RemoteFile,
    Start,
    State,
)
from genkit.world import World

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, kw_only=True)
class Component(Settings, ABC):
    """Anything that a recipe names with ``use``.

    Raises:
        SettingError: on construction with a value outside its type or range.
    """

    is_component = True

    source: ClassVar[str] = ""
    """Where the method comes from: paper and equation."""

    implements: ClassVar[tuple[str, ...]] = ()
    """Methods of which a class implements at least one; none where all are abstract or default."""

    def check(self, earlier: Stages) -> Iterator[Problem]:
        """Yield mistakes that no single setting shows, before anything runs.

        Must be quick and write nothing. Keys are relative to this component. A
        :class:`~genkit.errors.DataError` raised here is reported like a problem.
        """
        return iter(())

    def version(self) -> str:
        """Return a hash of the files that are read; empty if the settings determine the result.

        Part of the fingerprint of a stage that holds it. Raises DataError for an unreadable file.
        """
        return ""


def unbound(component: Component, method: str) -> UsageError:
    """Return the error of a method that only the bound object has."""
    name = type(component).__name__
    return UsageError(f"{name} refers to earlier stages; call bind(inputs).{method}(...)")


@dataclass(frozen=True)
class Design:
    """Settings and data of a network, as far as they are known before training.

    Attributes:
        settings: settings from which the network is built.
        spec: shape and attributes of the training data.
        stage: id of the stage that trains it; empty outside of a recipe.
        fakes_of: id of the stage whose denoiser drew the generated items of the training data;
            None if there are none, or if the stage is unknown.
    """

    settings: Network
    spec: DataSpec
    stage: str = field(default="", kw_only=True)
    fakes_of: str | None = field(default=None, kw_only=True)

    @property
    def classes(self) -> int:
        """Number of classes on which the network is conditioned; 0 for none."""
        return self.settings.classes_of(self.spec)

    def misfits(self, denoiser: Design) -> Iterator[Problem]:
        """Yield why the network cannot be evaluated on the samples and classes of a denoiser."""
        if self.spec.shape != denoiser.spec.shape:
            yield Problem(
                (),
                f"must be trained on items of the denoiser's shape {denoiser.spec.shape}, got "
                f"{self.spec.shape}",
                "choose a network that was trained on such data",
            )
        elif self.classes not in (0, denoiser.classes):
            yield Problem(
                (),
                f"must be conditioned on the denoiser's {denoiser.classes} classes or on none, got "
                f"{self.classes}",
                "choose a network that is not class-conditional, or another denoiser",
            )
        elif self.fakes_of and denoiser.stage and self.fakes_of != denoiser.stage:
            yield Problem(
                (),
                f'must be trained on samples of the denoiser that it guides, "{denoiser.stage}", '
                f'got those of "{self.fakes_of}"',
                f'train it on samples of "{denoiser.stage}"',
                Code.WRONG_REFERENCE,
            )


@dataclass(frozen=True)
class Trained(Design):
    """A trained network.

    Attributes:
        module: module with averaged weights, in eval mode, on the device, with gradients disabled.
        coupling: declarations of the coupler of its training; None if they are unknown.
    """

    module: nn.Module
    coupling: Coupling | None = None


class Inputs(Protocol):
    """Artifacts of earlier stages, and the device.

    A stage can read the stages to which its settings refer, directly or through other stages. Any
    other stage raises a PluginError: it is not in the fingerprint, so a change would be missed.
    """

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        ...

    def network(self, stage: str) -> Trained:
        """Return the network that a stage wrote, built on the device."""
        ...

    def read(self, stage: str, artifact: type[A]) -> A:
        """Return the artifact of a stage, its tensors on the CPU.

        Raises:
            DataError: the file is damaged.
            PluginError: the stage writes an artifact of another type.
        """
        ...

    def digest(self, stage: str) -> str:
        """Return the SHA-256 of the file of a stage's artifact, in hex."""
        ...


class Context(Inputs, Protocol):
    """Inputs, outputs and services of a running stage."""

    @property
    def folder(self) -> Path:
        """Folder of the stage, for files besides those that the record writes."""
        ...

    @property
    def record(self) -> Record:
        """Writer of the stage's artifact, pictures, rows and checkpoints."""
        ...

    @property
    def world(self) -> World:
        """Processes that run the stage; rank 0 writes its files."""
        ...

    def seed(self, *purpose: str | int) -> int:
        """Return the seed of ``(the run's seed, stage, *purpose)``."""
        ...

    def generator(self, *purpose: str | int) -> torch.Generator:
        """Return a CPU generator with that seed."""
        ...

    def stage(self, stage: str) -> Stage:
        """Return the settings of an earlier stage."""
        ...

    def results(self, stage: str) -> Path:
        """Return the folder of an earlier stage, read-only."""
        ...

    def costs(self, stage: str) -> Sequence[SamplingCost]:
        """Return the sampling costs that an earlier stage wrote; empty if it wrote none.

        Raises:
            DataError: the file is damaged.
        """
        ...

    def describe(self, component: Component) -> dict[str, Any]:
        """Return the table that decodes to a component, all defaults written out."""
        ...

    def warn(self, text: str) -> None:
        """Print a warning on rank 0, at most once per text."""
        ...

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        """Show ``done`` of ``total`` units; call it before the work too, to show a resumption."""
        ...

    def stop_requested(self) -> bool:
        """Whether the user requested a stop; the stage must then save and raise InterruptedRun.

        Collective: every rank must call this at the same point.
        """
        ...

    def single_process(self) -> Context:
        """Return a context for work of this process alone, in which no call is collective."""
        ...


# --- coupling -------------------------------------------------------------------------------


class BoundCoupler(Protocol):
    """Result of :meth:`Coupler.bind`."""

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair a pool of images with unit-variance noise, see :meth:`Coupler.pair`."""
        ...


class BoundDatasetCoupler(Protocol):
    """Result of :meth:`DatasetCoupler.bind`."""

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise sample, see :meth:`DatasetCoupler.choose`."""
        ...


class AnyCoupler(Component):
    """Declarations of both kinds of coupler; by default no property is guaranteed."""

    @abstractmethod
    def bind(self, inputs: Inputs) -> BoundCoupler | BoundDatasetCoupler:
        """Return the object that pairs, with the artifacts of earlier stages loaded.

        Called once per stage. A coupler that refers to no stage returns itself.
        """

    @property
    def preserves_noise_marginal(self) -> bool:
        """Whether the paired noise is N(0, I) over many pools."""
        return False

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        """Attributes of a batch, such as ``labels``, given which the noise is N(0, I).

        Must contain the condition of a conditional network.
        """
        return frozenset()

    @property
    def independent(self) -> bool:
        """Whether noise and data are independent.

        Fresh noise added to ``data + sigma * noise`` then gives the distribution at a higher noise
        level, as churn assumes, and a sampler may start from N(0, sigma_max^2 I).
        """
        return False

    @property
    def preserves_score(self) -> bool:
        """Whether ``(D(x; sigma) - x) / sigma^2`` is the score, which independence implies.

        Otherwise it is only the negative velocity of the probability-flow ODE over sigma. The two
        agree almost everywhere where the data is a locally constant function of the noise.
        """
        return self.independent

    @property
    def requires(self) -> frozenset[str]:
        """Attributes of a batch, such as ``labels``, that coupling requires."""
        return frozenset()


class Coupler(AnyCoupler):
    """Assigns noise samples to the images of a pool. Implements ``pair`` or ``bind``."""

    implements = ("pair", "bind")

    @property
    def bijective(self) -> bool:
        """Whether every image and every noise sample of a pool is used exactly once."""
        return False

    @property
    def preserves_noise_marginal(self) -> bool:
        """Whether the paired noise is N(0, I) over many pools, which a bijection implies."""
        return self.bijective

    @property
    def noises_per_image(self) -> int:
        """Number of noise samples drawn per image; each image is assigned one of all of them."""
        return 1

    def bind(self, inputs: Inputs) -> BoundCoupler:
        return self

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair a pool of images with unit-variance noise.

        A pure function: equal arguments and generator states give equal pairs, and the arguments
        are not modified. It is called from several threads concurrently, and should compute on the
        device of its arguments.

        Args:
            batch: ``[N, *shape]`` images, after augmentation, with their attributes.
            noise: ``[M, *shape]`` unit-variance noise, M = N * ``noises_per_image``; the samples
                drawn for image k start at k * ``noises_per_image``.
            generator: generator on the CPU, for every random choice.

        Returns:
            N pairs, as int64 index vectors on the CPU.

        Raises:
            DataError: a value or cost is not finite (the message has its index); or N and M do
                not fit.
            UsageError: the coupler can pair only after :meth:`bind`.
        """
        raise unbound(self, "pair")


class DatasetCoupler(AnyCoupler):
    """Assigns images of the whole data set to noise samples. Implements ``choose`` or ``bind``."""

    implements = ("choose", "bind")

    @property
    def preserves_noise_marginal(self) -> bool:
        """True: every noise sample is used exactly once."""
        return True

    def bind(self, inputs: Inputs) -> BoundDatasetCoupler:
        return self

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise sample; a pure function, as :meth:`Coupler.pair`.

        Args:
            data: all ``N`` items of the data set, not augmented.
            noise: ``[M, *shape]`` unit-variance noise, for any M.
            generator: generator on the CPU, for every random choice.

        Returns:
            ``[M]`` int64 indices of items on the CPU.

        Raises:
            DataError: a value or cost is not finite; the message has its index.
            UsageError: the coupler can choose only after :meth:`bind`.
        """
        raise unbound(self, "choose")


# --- networks -------------------------------------------------------------------------------


class BoundNetwork(Protocol):
    """Result of :meth:`Network.bind`."""

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network for this data, see :meth:`Network.build`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Network(Component):
    """Settings of a network that the ``train`` stage trains. Implements ``build`` or ``bind``."""

    implements: ClassVar[tuple[str, ...]] = ("build", "bind")

    output: ClassVar[type[NetworkFile]]
    """Type of the artifact that its training writes."""

    class_conditional: bool = setting(False, doc="give the network each item's class")

    def classes_of(self, spec: DataSpec) -> int:
        """Return the number of classes on which the network is conditioned; 0 for none.

        Raises:
            DataError: the network is class-conditional, and the data has no labels.
        """
        if self.class_conditional and not spec.classes:
            raise DataError(
                "class_conditional must be false where the data has no labels, got true; "
                "write class_conditional = false or choose a data set with labels",
                Code.MISSING_ATTRIBUTE,
            )
        return spec.classes if self.class_conditional else 0

    def bind(self, inputs: Inputs) -> BoundNetwork:
        """Return the object that builds, with the networks of earlier stages that it contains.

        Called once per stage, and when a file of the network is loaded. ``inputs`` provides only
        networks; each must be wrapped in :class:`genkit.parts.frozen.Frozen`, and is saved as well.
        """
        return self

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network for this data, freshly initialised from torch's global generator."""
        raise unbound(self, "build")


class Preconditioner(Component):
    """Defines ``sigma_data``, the four coefficients of a denoiser, and the loss weight."""

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return c_skip, c_out, c_in and c_noise for noise levels ``[B]``."""

    @abstractmethod
    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight of the denoising loss at noise levels ``[B]``."""

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the nearest supported noise levels; by default all levels are supported.

        Args:
            sigma: noise levels above 0, of any shape.
        """
        return sigma

    def sigma_range(self) -> tuple[float, float]:
        """Return the range to which schedules are clipped, by default that of :meth:`round_sigma`.

        Churn may exceed it: levels that a solver chooses are rounded and not clipped.
        """
        ends = torch.tensor([0.0, torch.inf], dtype=torch.float64)
        lowest, highest = self.round_sigma(ends).tolist()
        return lowest, highest


class Preconditioned(nn.Module):
    """``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)`` (EDM, arXiv 2206.00364, eq. 7).

    Args:
        network: ``F``; called as ``network(x, c_noise, labels)`` with ``c_noise`` ``[B]``, and with
            ``augment_labels`` as a fourth argument where they are given.
        preconditioner: owner of the four coefficients and of the loss weight.
    """

    def __init__(self, network: nn.Module, preconditioner: Preconditioner) -> None:
        super().__init__()
        self.network = network
        self.preconditioner = preconditioner

    def forward(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None = None,
        augment_labels: Tensor | None = None,
    ) -> Tensor:
        """Return the denoised ``x``.

        Args:
            x: ``[B, *shape]`` noisy data.
            sigma: ``[B]`` noise levels, above 0.
            labels: ``[B]`` int64 class indices; None for an unconditional network.
            augment_labels: ``[B, A]`` description of each augmentation, for a network that takes
                it; None for data without augmentation, and for sampling.
        """
        c = self.preconditioner.coefficients(sigma)
        extra = () if augment_labels is None else (augment_labels,)
        raw = self.network(as_column(c.c_in, x) * x, c.c_noise, labels, *extra)
        denoised: Tensor = as_column(c.c_skip, x) * x + as_column(c.c_out, x) * raw.to(x.dtype)
        return denoised


@dataclass(frozen=True, kw_only=True)
class Denoiser(Network):
    """A network that, behind its preconditioner, estimates the clean image.

    The module that ``build`` returns is called as ``denoiser(x, sigma, labels) -> D(x; sigma)``:
    x ``[B, *shape]``, sigma ``[B]``, labels ``[B]`` int64 or None. In training, if A is not 0, a
    fourth argument ``augment_labels`` ``[B, A]`` describes the augmentation of each image.
    """

    output = DenoiserFile
    implements = ("build_network", "build", "bind")

    takes_augment_labels: ClassVar[bool] = False
    """Whether the raw network takes a description of each augmentation.

    It is the fourth argument, ``augment_labels``: ``[B, spec.augment_labels]`` or None.
    """

    preconditioner: Preconditioner = setting(
        doc="scales the network's input and output", use={"use": "edm"}
    )

    @property
    def label_dropout(self) -> float:
        """Probability of dropping the class of an item in training, for classifier-free guidance.

        Above 0, a class-conditional network can also be called with labels None.
        """
        return 0.0

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the raw network F, called as ``F(x [B, *shape], c_noise [B], labels)``.

        A network with an encoder may have a method ``encode`` with the same arguments, which
        returns features ``[B, C, h, w]`` of the lowest resolution, as input of a discriminator.
        """
        raise unbound(self, "build")

    def build(self, spec: DataSpec) -> Preconditioned:
        return Preconditioned(self.build_network(spec), self.preconditioner)


class Discriminator(Network):
    """A network that discriminates real from generated items at every noise level.

    The module is called as ``discriminator(x [B, *shape], sigma [B], labels) -> logit [B]``, the
    logarithm of d / (1 - d), where d is the probability that x comes from real data.
    """

    output = DiscriminatorFile


class Classifier(Network):
    """A classifier of clean images, whose features serve to compare images.

    The module is called as ``classifier(x [B, *shape]) -> logits [B, classes]`` and has
    ``features(x) -> [B, F]``. It may have ``head(features) -> logits``.
    """

    output = ClassifierFile


@dataclass(frozen=True)
class Imported:
    """A network that another project trained.

    Attributes:
        network: settings that build it.
        spec: shape and attributes of the training data.
        weights: weights, by their names in genkit's network.
        images: number of training images; 0 if the file does not contain it.
        notes: facts that a user should know, one sentence each.
        ema_length: relative length of the power-function average of the weights; None for other
            averages, and if the file name does not contain it.
    """

    network: Network
    spec: DataSpec
    weights: Mapping[str, Tensor]
    images: int
    notes: tuple[str, ...] = ()
    ema_length: float | None = None


class Importer(Component):
    """Reads a network from a file of another project, without executing code in it."""

    snapshots: ClassVar[str] = "*"
    """Pattern of file names in the folder of a training, for averages of any length."""

    @abstractmethod
    def read(self, path: Path) -> Imported:
        """Return the network of a file.

        Raises:
            DataError: the file is damaged, of another kind, or inconsistent.
        """


# --- training -------------------------------------------------------------------------------


class BoundObjective(Protocol):
    """Result of :meth:`Objective.bind`."""

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each item, see :meth:`Objective.loss`."""
        ...


class Objective(Component):
    """The loss of a training. Implements ``loss`` or ``bind``."""

    implements = ("loss", "bind")

    trains: ClassVar[type[Network]]
    """Base class of the networks that it can train."""

    conditions: ClassVar[frozenset[str]] = frozenset()
    """Attributes, of ``labels`` and ``realness``, that it conditions on besides the network."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """Attributes of a batch that the loss requires."""

    estimates_mean: ClassVar[bool] = False
    """Whether the posterior mean of the images, given ``(x, sigma, labels)``, minimizes the loss.

    If so, :meth:`loss` is also called with a network that returns this mean and has the
    preconditioner of the trained one, which gives a lower bound of the loss on the data.
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
        """Return the noise levels of items by their ``quantile``, ``[B]``.

        Args:
            quantile: ``[B]`` float64 in (0, 1).

        Returns:
            ``[B]`` noise levels; or None, the default, where an item has no single noise level,
            in which case the loss is not reported by noise level.
        """
        return None

    def terms(self, shape: tuple[int, ...]) -> int:
        """Return the number of terms whose mean is the loss of an item, 1 by default.

        Adam's steps are invariant to the scale of the loss except for epsilon. Where published code
        sums over elements and the loss here is their mean, this returns the number of elements, by
        which epsilon is divided, so that the steps are the published ones. The mean keeps
        ``gradient_clip`` and the scale of float16 gradients independent of the image size.

        Args:
            shape: shape of one item.
        """
        return 1


@dataclass(frozen=True, kw_only=True)
class Optimizer(Component):
    """Settings of an optimizer: learning rate, gradient clipping, and the update rule."""

    learning_rate: float = setting(1e-3, doc="maximum learning rate", above=0)
    learning_rate_ramp: int = setting(
        0, doc="images over which the learning rate rises from 0; 0 for none", at_least=0
    )
    learning_rate_decay: int = setting(
        0,
        doc="images from which on the learning rate falls with the inverse square root of the "
        "images seen; 0 for none",
        at_least=0,
    )
    gradient_clip: float | None = setting(None, doc="maximum norm of the gradient", above=0)

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if 0 < self.learning_rate_decay < self.learning_rate_ramp:
            yield Problem(
                ("learning_rate_decay",),
                f"must be at least learning_rate_ramp = {self.learning_rate_ramp}, got "
                f"{self.learning_rate_decay}: the learning rate would fall before it has risen",
                "write a larger value, or a smaller learning_rate_ramp",
            )

    def rate(self, images: int) -> float:
        """Return the learning rate after a number of images.

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
            parameters: parameters of the network, on the device of the training.
            terms: number of terms whose mean is the loss, see :meth:`Objective.terms`. Constants
                relative to the gradient, such as Adam's epsilon, must be divided by it.
        """


class RunningAverage(ABC):
    """Averaged weights that follow a network in training."""

    model: nn.Module
    """The network with averaged weights, in eval mode, with gradients disabled.

    The trainer saves its state, and later stages use it.
    """

    snapshot_images: int = 0
    """Images between two calls of :meth:`snapshot`; 0 for none."""

    @abstractmethod
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        """Update the average with the weights of ``model``, without synchronization.

        Args:
            model: the network after its optimizer step.
            images: number of images before this batch.
            batch_size: number of images in this batch.
        """

    def state(self) -> dict[str, Tensor]:
        """Return the state for :meth:`restore`, besides that of :attr:`model`."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state` returned, bit for bit.

        Raises:
            KeyError: the state belongs to other settings or to another network.
        """
        return

    def snapshot(self, folder: Path, images: int) -> None:
        """Write files of the average to the folder of the stage, after ``images`` images."""
        return


class Average(Component):
    """Settings of an average of the weights over a training."""

    reconstructible: ClassVar[bool] = False
    """Whether :mod:`genkit.parts.power_averages` can combine its snapshots."""

    @abstractmethod
    def build(self, model: nn.Module) -> RunningAverage:
        """Return an average that starts with the weights of ``model``."""


class NoiseDistribution(Component):
    """The distribution of noise levels in training."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """Return the noise levels below which the fractions ``u`` (float64, (0, 1)) lie."""

    def levels(self, batch: Batch) -> Tensor:
        """Return the noise level of each item, ``[B]`` float32.

        Raises:
            DataError: the batch has no ``quantile``.
        """
        if batch.quantile is None:
            raise DataError(
                "Batch.quantile must be float64 in (0, 1), got None", Code.MISSING_ATTRIBUTE
            )
        return self.quantile(batch.quantile).float()


class Augmentation(Component):
    """A random change of the images before coupling."""

    @property
    def augment_labels(self) -> int:
        """Length A of the vector that describes the augmentation of an image; 0 for none.

        A denoiser without this input generates augmented images.
        """
        return 0

    @abstractmethod
    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the same items with changed ``data``, and ``augment_labels`` where A is not 0.

        Args:
            batch: N items on any device, on which the result is computed as well.
            generator: generator on the CPU, for every random choice of the pool; the draws of an
                item depend on its position in the pool.
        """


@dataclass(frozen=True)
class TrainingState:
    """State of a training, as passed to callbacks.

    Attributes:
        images: number of images so far.
        total: number of images of the whole training.
        network: copy of the trained network, in eval mode, with gradients disabled.
        averaged: copy of the network with averaged weights, which the training writes; likewise.
    """

    images: int
    total: int
    network: Trained
    averaged: Trained


class BoundCallback(Protocol):
    """Result of :meth:`Callback.bind`."""

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return scores and pictures of a training, see :meth:`Callback.call`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Callback(Component):
    """Observes a training. Implements ``call`` or ``bind``.

    It changes no result and is not part of the fingerprint: the networks are copies, random state
    and precision are restored after a call, and no pool is coupled meanwhile. Only rank 0 calls it.
    An error ends the run, except that a DataError with the code ``not-finite`` is a warning, since
    an untrained network may give such samples.
    """

    implements: ClassVar[tuple[str, ...]] = ("call", "bind")

    every: int = setting(doc="images between two calls; one more is made at the end", at_least=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its scores and pictures, unique among the callbacks of a stage."""
        return ()

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield why it cannot observe the training of a network, before anything runs.

        Args:
            design: network under training, and its data.
            networks: networks that earlier stages write, by id; without those of unknown data.
        """
        return iter(())

    def bind(self, context: Context) -> BoundCallback:
        """Return the object to call, with the artifacts of earlier stages loaded.

        Called once, before the first step of every run of the stage.
        """
        return self

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return scores and pictures of a training; a pure function that writes nothing.

        The stage logs the scores, overwrites ``NAME.png`` with each picture, and passes both to
        the trackers. Warnings are printed once.

        Args:
            training: state of the training.
            context: context of a single process, whose ``seed`` is independent of the training's.
        """
        raise unbound(self, "call")


class Dataset(Component):
    """A data set of images or vectors, with their attributes."""

    archives: ClassVar[Mapping[str, RemoteFile]] = MappingProxyType({})
    """Files that ``genkit data get`` downloads, by their names in ``root``."""

    @abstractmethod
    def spec(self) -> DataSpec:
        """Return shape and attributes of the items without reading all of them.

        Raises:
            DataError: a file is missing, unreadable, or has another shape than the others.
        """

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser drew generated items; None for none."""
        return None

    def item_count(self) -> int | None:
        """Return the number of items without reading them; None if unknown. Raises as ``spec``."""
        return None

    def held_out_part(self) -> Dataset | None:
        """Return the data set of items held out of training; None, the default, for none."""
        return None

    @abstractmethod
    def load(self, inputs: Inputs) -> Batch:
        """Return all items, on the CPU; images as float32 in [-1, 1], or as uint8.

        Raises:
            DataError: as for ``spec``, or values that are not finite.
        """


# --- sampling -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampler:
    """Denoiser, solver and start, for a schedule whose noise levels depend on them.

    Attributes:
        denoiser: module of the denoiser, without guidance.
        coupling: coupling of its training; None if unknown.
        solver: solver of the sampling ODE.
        start: start that the user chose; see :mod:`genkit.start`.
    """

    denoiser: nn.Module
    coupling: Coupling | None
    solver: Solver
    start: Start


@dataclass(frozen=True, kw_only=True)
class Schedule(Component):
    """The noise levels of a solver. Implements ``sigmas`` or ``bind``."""

    implements: ClassVar[tuple[str, ...]] = ("sigmas", "bind")

    steps: int = setting(18, doc="number of solver steps", at_least=1)

    @property
    def bound(self) -> bool:
        """Whether its settings determine its noise levels, without :meth:`bind`."""
        return type(self).sigmas is not Schedule.sigmas

    def check_sampler(self, denoiser: str, solver: Solver, earlier: Stages) -> Iterator[Problem]:
        """Yield why a denoiser cannot be sampled with its noise levels, before anything runs.

        Args:
            denoiser: id of the stage that trained the denoiser.
            solver: solver of the sampling ODE.
            earlier: stages above, by id.
        """
        return iter(())

    def bind(self, inputs: Inputs, sampler: Sampler) -> Schedule:
        """Return the schedule with the noise levels for a denoiser, from earlier stages.

        Called once per stage. A schedule that refers to no stage returns itself.

        Raises:
            DataError: its noise levels were fitted to another denoiser or solver.
        """
        return self

    def sigmas(self) -> Tensor:
        """Return ``[steps + 1]`` float64 noise levels, decreasing, the last 0."""
        raise unbound(self, "sigmas")

    def within(self, lowest: float, highest: float) -> Schedule:
        """Return the schedule clipped to a range of noise levels, which a network supports."""
        return self

    def sigma_range(self) -> tuple[float, float]:
        """Return the min and the max of the range of noise levels above 0.

        A schedule with levels from a table need not have levels at the ends of its range.
        """
        sigmas = self.sigmas()
        return float(sigmas[-2]), float(sigmas[0])


class Solver(Component):
    """Integrates the probability-flow ODE, or an SDE, over decreasing noise levels."""

    two_slopes: ClassVar[bool] = False
    """Whether a step combines the slope at its state with one of an evaluation marked ``inner``."""

    churns: ClassVar[bool] = False
    """Whether each step begins with ``denoise.churn`` and adds the returned amount of noise."""

    @property
    def stochastic(self) -> bool:
        """Whether steps add fresh noise, so that one between equal noise levels has an effect."""
        return False

    def between(self, sigma_min: float, sigma_max: float, sigmas: Tensor) -> Solver:
        """Return the solver for a range of noise levels; by default itself.

        Called before :meth:`solve`, and in checks. A solver whose time variable depends on the
        range, such as that of the VP SDE, sets it here.

        Args:
            sigma_min: min noise level of the schedule, clipped to the range of the network.
            sigma_max: max noise level, likewise.
            sigmas: ``[steps + 1]`` noise levels of the steps.

        Raises:
            DataError: the solver is undefined for the range; the message has both ends.
        """
        return self

    @abstractmethod
    def solve(
        self, denoise: Denoise, x: Tensor, sigmas: Tensor, randn_like: RandnLike
    ) -> Iterator[State]:
        """Yield the trajectory: a state for each noise level, the last with ``sigma`` 0.

        Args:
            denoise: the (guided) denoiser. Each step evaluates it once at the state that is
                yielded; every other evaluation is marked ``inner=True``.
            x: ``[B, *shape]`` start, with standard deviation ``sigmas[0]``.
            sigmas: ``[steps + 1]`` decreasing noise levels on the CPU, the last 0. Reading one does
                not synchronize with the device of ``x``.
            randn_like: function that returns fresh noise, for stochastic solvers.
        """


class Latents(Component):
    """Draws the latents, the classes and the noise of samples from their seeds."""

    depends_on_device: ClassVar[bool] = False
    """Whether a CPU and a GPU draw different numbers, so that their samples cannot be mixed."""

    def require(self, shape: tuple[int, ...], seeds: Sequence[int]) -> None:
        """Raise DataError unless samples of this shape can be drawn from these seeds.

        Called before anything is drawn or written, with at least one seed.
        """
        for seed in (min(seeds), max(seeds)):
            if not 0 <= seed < SEED_LIMIT:
                limit = SEED_LIMIT - 1
                raise DataError(f"seeds must be from 0 to {limit}, got {seed}; write one of them")

    @abstractmethod
    def draw(
        self,
        shape: tuple[int, ...],
        seeds: Sequence[int],
        classes: int,
        device: torch.device,
        run_seed: int,
    ) -> Draws:
        """Return the random draws of a batch of samples.

        The draws of a sample depend on its own seed and not on the others of its batch.

        Args:
            shape: shape of one item.
            seeds: ``[B]`` seeds of the samples; in a stage, the indices of the samples.
            classes: number of classes from which labels are drawn; 0 for none.
            device: device of the sampling.
            run_seed: seed that all samples of a run or stage have in common.
        """


class BoundGuidance(ABC):
    """A guidance with its networks loaded; it counts their calls."""

    evaluations: int = 0
    """Number of network calls so far, one for each batch."""

    component: Guidance | None = None
    """Guidance that was bound, for messages; set by the caller of ``bind``."""

    interval: tuple[float, float] = (0.0, math.inf)
    """Min and max noise level at which it acts; set by the caller of ``bind``.

    Outside of it, :meth:`correction` is not called. If the items of a batch differ in their noise
    level, corrections are computed for all and applied inside the interval.
    """

    def begin(self) -> BoundGuidance:
        """Return the guidance for one batch of trajectories. Called before their first step.

        By default itself; a guidance with state between steps must return a copy.
        """
        return self

    def churn(self, x: Tensor, amount: float | Tensor) -> float | Tensor:
        """Return the amount of noise for the next step; called once per step.

        Solvers that declare ``churns`` call it, through :meth:`genkit.types.Denoise.churn`.

        Args:
            x: ``[B, *shape]`` state at the beginning of the step.
            amount: amount that the solver adds, its ``s_churn``: one number or ``[B]``.

        Returns:
            ``amount``, or one amount per item, ``[B]`` on the device of the samples.
        """
        return amount

    @abstractmethod
    def correction(
        self,
        x: Tensor,
        sigma: Tensor,
        labels: Tensor | None,
        denoised: Tensor,
        *,
        inner: bool = False,
    ) -> Tensor:
        """Return the correction ``[B, *shape]`` that is added to the denoised image.

        The corrections of several guidances are summed, so their order has no effect. A pure
        function of the arguments, except for state of a copy that :meth:`begin` returns. The
        correction of an item must not depend on the others of its batch.

        Args:
            x: ``[B, *shape]`` noisy state, float32.
            sigma: ``[B]`` noise levels.
            labels: ``[B]`` int64 or None.
            denoised: ``[B, *shape]`` estimate of the denoiser, without any guidance.
            inner: False for the first evaluation of a solver step; True for other evaluations,
                including those that correct the start.
        """


@dataclass(frozen=True, kw_only=True)
class Guidance(Component):
    """A correction of the denoised image, usable by every solver.

    A setting ``weight``, where there is one, is its strength: 0 gives no correction.
    """

    requires_score: ClassVar[bool] = False
    """Whether it requires that ``(D(x; sigma) - x) / sigma^2`` is the score."""

    sigma_min: float = setting(0.0, doc="min noise level at which it acts", at_least=0.0)
    sigma_max: float | None = setting(
        None,
        doc="max noise level at which it acts; no limit if left out or inf",
        above=0.0,
        infinite=True,
    )

    @property
    def interval(self) -> tuple[float, float]:
        """Min and max noise level at which it acts."""
        return self.sigma_min, math.inf if self.sigma_max is None else self.sigma_max

    @property
    def adds_noise(self) -> bool:
        """Whether its :meth:`BoundGuidance.churn` may request additional noise."""
        return False

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.sigma_min >= self.interval[1]:
            yield Problem(
                ("sigma_min",),
                f"must be below sigma_max = {self.sigma_max:g}, got {self.sigma_min:g}",
                f"write a value below {self.sigma_max:g}",
                Code.OUT_OF_RANGE,
            )

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield why it cannot guide a denoiser, before anything is drawn.

        Args:
            denoiser: denoiser that is guided.
            networks: networks to which it may refer, by the value of the reference.
        """
        return iter(())

    def check_solver(self, solver: Solver) -> Iterator[Problem]:
        """Yield why it cannot be used with a solver, before anything is drawn."""
        if self.adds_noise and not solver.churns:
            yield Problem(
                (),
                f"adds fresh noise and must be used with a solver that churns, got "
                f"{type(solver).__name__}",
                'write solver = { use = "heun" }',
                Code.CONFLICT,
            )

    @abstractmethod
    def bind(self, inputs: Inputs, denoiser: Trained) -> BoundGuidance:
        """Return the guidance with its networks loaded. Called once per stage, not per batch.

        Args:
            inputs: artifacts to which it refers.
            denoiser: guided denoiser.
        """


# --- evaluation -----------------------------------------------------------------------------


class Extractor(Component):
    """Computes the features in which two sets of images are compared."""

    label: ClassVar[str]
    """Name of the features in the names of scores, such as ``classifier``."""

    classifies: ClassVar[bool] = False
    """Whether the features are those of a classifier, and determine its logits."""

    @property
    def frechet(self) -> str:
        """Name of the Fréchet distance over these features; ``fid`` only for Inception."""
        return f"frechet_{self.label}"

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield why it cannot be applied to such items; ``networks`` as in ``check_guided``."""
        return iter(())

    @abstractmethod
    def bind(self, inputs: Inputs) -> nn.Module:
        """Return a module ``[B, *shape] -> [B, F]``, on the device of ``inputs``.

        Images are float32 in [-1, 1] with 256 values. If ``classifies``, the module has a method
        ``head`` that returns logits: ``[B, F] -> [B, classes]``.
        """

    @abstractmethod
    def identity(self, inputs: Inputs) -> str:
        """Return a name with a hash, stored with every score; equal names mean equal features."""


class Features(Protocol):
    """Features of samples and reference, computed once per extractor.

    Collective: every rank must call a method at the same point, and all receive the result.
    """

    def of_samples(self, extractor: Extractor) -> Tensor:
        """Return ``[N, F]`` features of the samples on the CPU, in the dtype of the extractor.

        Raises:
            DataError: a feature is not finite.
        """
        ...

    def of_reference(self, extractor: Extractor) -> Tensor:
        """Return ``[M, F]`` features of the reference on the CPU.

        Raises:
            DataError: a feature is not finite, or the reference is a file of statistics.
        """
        ...

    def statistics(self, extractor: Extractor) -> Statistics:
        """Return mean and covariance of the features of the reference.

        Raises:
            DataError: the file of statistics has none for the extractor.
        """
        ...

    def logits(self, extractor: Extractor, features: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of features ``[N, F]``, on the CPU.

        Raises:
            DataError: the extractor is no classifier.
        """
        ...


@dataclass(frozen=True)
class Subject:
    """Inputs of a metric.

    Attributes:
        samples: generated items; images as uint8, vectors as float32.
        reference: real items in the same form; None if there are only their statistics.
        denoiser: denoiser that drew the samples, without guidance; if it is unknown, calling it
            raises a DataError.
        features: features of samples and reference.
        coupling: coupling of the training of the denoiser; None if unknown.
    """

    samples: Batch
    reference: Batch | None
    denoiser: nn.Module
    features: Features
    coupling: Coupling | None = None


class BoundMetric(Protocol):
    """Result of :meth:`Metric.bind`."""

    def measure(self, subject: Subject, context: Context) -> Measurement:
        """Return scores and curves, see :meth:`Metric.measure`."""
        ...


class Metric(Component):
    """A score of samples, or of the denoiser that drew them. Implements ``measure`` or ``bind``."""

    implements = ("measure", "bind")

    requires_denoiser: ClassVar[bool] = False
    """Whether it calls the denoiser, which is unknown for samples of other origin.

    It is measured once with all samples, even if other metrics are measured on several sets.
    """

    requires_labels: ClassVar[bool] = False
    """Whether it requires the classes for which the samples were drawn."""

    accepts_statistics: ClassVar[bool] = False
    """Whether statistics of features suffice in place of the reference items."""

    higher_is_better: ClassVar[bool | None] = None
    """Whether higher scores are better; None if neither higher nor lower ones are."""

    @property
    def min_samples(self) -> int:
        """Min number of samples."""
        return 1

    @property
    def min_reference(self) -> int:
        """Min number of reference items; 0 for a metric without reference."""
        return 0

    @property
    @abstractmethod
    def scores(self) -> tuple[str, ...]:
        """Names of all its scores, unique among the metrics of a stage.

        ``nfe``, ``guidance_nfe`` and the endings ``_std`` and ``_min`` are reserved.
        """

    def check_items(self, spec: DataSpec) -> Iterator[Problem]:
        """Yield why it cannot measure such items."""
        return iter(())

    def bind(self, inputs: Inputs) -> BoundMetric:
        """Return the object that measures; called once per stage, not per set of samples."""
        return self

    def measure(self, subject: Subject, context: Context) -> Measurement:
        """Return scores, curves and facts; must not modify the subject.

        The stage adds the facts of samples and reference, and the identity of every extractor
        among the settings.
        """
        raise unbound(self, "measure")


# --- tracking -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrackedRun:
    """The run of a tracker.

    Attributes:
        name: name of the recipe.
        folder: folder for the tracker's files; need not exist.
        recipe: the recipe with all defaults, as tables.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]


class BoundTracker(ABC):
    """Result of :meth:`Tracker.open`. All calls come from one thread.

    It must write only below the folder of the run. Arguments are copies.
    """

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Receive the rows of earlier calls that remain valid; none if the stage starts over.

        The first call for a stage that logs rows. Other rows that an earlier tracker in the same
        folder received for this stage are invalid.
        """
        return

    @abstractmethod
    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        """Receive a row of a stage: numbers, text or lists by name.

        In a training, ``images`` is the number of images so far.
        """

    @abstractmethod
    def scores(self, stage: str, scores: Scores) -> None:
        """Receive the scores of a stage."""

    @abstractmethod
    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Receive a picture, a PNG file."""

    def close(self) -> None:
        """Flush and close; the last call."""
        return


class Tracker(Component):
    """Sends the rows, scores and pictures of a run to a dashboard or a file.

    A tracker changes no result and is not part of the fingerprint, so it can be added to a resumed
    run. It runs in a thread of rank 0 and must not write to the terminal. A tracker that raises, or
    that does not return for a minute, is disabled with one warning, and the run continues. The end
    of a run waits for it at most ten seconds.
    """

    @abstractmethod
    def open(self, run: TrackedRun) -> BoundTracker:
        """Return the tracker of a run, new or resumed."""


# --- running --------------------------------------------------------------------------------


class Stage(Component):
    """One step of a recipe, run in a folder of its own."""

    shared: ClassVar[bool] = False
    """Whether every rank runs the stage, see ``context.world``; otherwise rank 0 only."""

    @property
    @abstractmethod
    def output(self) -> type[Artifact] | None:
        """Type of the artifact that it writes with ``context.record.save``; None for none.

        A class attribute, ``output = Samples``, is enough.
        """

    @abstractmethod
    def run(self, context: Context) -> None:
        """Run the stage, or resume an earlier call in the same folder that stopped or was killed.

        Results must be the same bytes in either case, for one seed. Pictures may differ.
        """

    def design(self, earlier: Stages) -> Design | None:
        """Return the design of the network that it writes; None if it writes no network.

        Called before anything runs, to check the stages that refer to this one.

        Raises:
            DataError: its data is missing or invalid.
        """
        return None

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser draws the samples that it writes.

        Called before anything runs. None means that the denoiser is unknown: metrics that call it
        cannot be used, and a wrong shape is reported only when the samples are scored.
        """
        return None

    def work(self, earlier: Stages) -> float:
        """Return about how many items pass forward through a network; 0 if it is unknown.

        By it the display of a run weighs its stages. A backward pass counts as two forward passes.

        Args:
            earlier: stages of the recipe, by id.
        """
        return 0.0


@dataclass(frozen=True, kw_only=True)
class SamplingStage(Stage):
    """A stage that draws samples, whose settings the stage `sweep` can vary."""

    output = Samples

    count: int = setting(64, doc="number of samples", at_least=1)

    @property
    def depends_on_device(self) -> bool:
        """Whether a CPU and a GPU draw different samples, so that they cannot be mixed."""
        return False

    def sampler_fact(self, context: Context) -> str | None:
        """Return the fact ``sampler`` of its samples, which describes its settings; None for none.

        A sweep, whose cells differ in it, stores that of the stage that it varies.
        """
        return None

    @abstractmethod
    def draw(self, context: Context) -> Samples:
        """Draw all samples without writing a file. Collective: every rank returns all samples."""


Stages = Mapping[str, Stage]
"""The stages above the one that is checked, by id."""
