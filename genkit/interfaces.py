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
        """Return a hash of the files that are read; empty where the settings determine the result.

        Part of the fingerprint of a stage that holds it. Raises DataError for an unreadable file.
        """
        return ""


def unbound(component: Component, method: str) -> UsageError:
    """Return the error of a method that only the bound object has."""
    name = type(component).__name__
    return UsageError(f"{name} refers to earlier stages; call bind(inputs).{method}(...)")


@dataclass(frozen=True)
class Design:
    """A network as it is known before it is trained.

    Attributes:
        settings: settings from which it is built.
        spec: data on which it is trained.
        stage: id of the stage that trains it; empty outside of a recipe.
        fakes_of: id of the stage whose denoiser drew the generated items among its data; None
            where there are none, or where that is unknown.
    """

    settings: Network
    spec: DataSpec
    stage: str = field(default="", kw_only=True)
    fakes_of: str | None = field(default=None, kw_only=True)

    @property
    def classes(self) -> int:
        """Number of classes on which it is conditioned; 0 for none."""
        return self.settings.classes_of(self.spec)

    def misfits(self, denoiser: Design) -> Iterator[Problem]:
        """Yield why the network cannot be called with the states and the classes of a denoiser."""
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
        coupling: what the coupler of its training declares; None where that is unknown.
    """

    module: nn.Module
    coupling: Coupling | None = None


class Inputs(Protocol):
    """Artifacts of earlier stages, and where to compute.

    A stage can read those of the stages that its settings refer to, and of those to which these
    refer. Any other raises a PluginError, since a change of its result would not be seen.
    """

    @property
    def device(self) -> torch.device:
        """Where to compute."""
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
    """What a running stage is given."""

    @property
    def folder(self) -> Path:
        """Folder of the stage, for files besides those that the record writes."""
        ...

    @property
    def record(self) -> Record:
        """Writes the stage's artifact, pictures, rows and checkpoints."""
        ...

    @property
    def world(self) -> World:
        """The processes that run the stage together; one of them writes its files."""
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
        """Return what an earlier stage wrote of the cost of its samples; empty for nothing.

        Raises:
            DataError: the file is damaged.
        """
        ...

    def describe(self, component: Component) -> dict[str, Any]:
        """Return the table that decodes to a component, all defaults written out."""
        ...

    def warn(self, text: str) -> None:
        """Print a warning once, however often a stage or its processes repeat it."""
        ...

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        """Show progress: ``done`` of ``total`` images, samples or cells; the optimizer's step."""
        ...

    def stop_requested(self) -> bool:
        """Whether the user asked to stop: save, then raise InterruptedRun.

        Collective: every rank must call this at the same point.
        """
        ...

    def single_process(self) -> Context:
        """Return a context for work of this process alone, in which no call is collective."""
        ...


# --- coupling -------------------------------------------------------------------------------


class BoundCoupler(Protocol):
    """A coupler that is ready to pair: what :meth:`Coupler.bind` returns."""

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair a pool of images with unit-variance noise, see :meth:`Coupler.pair`."""
        ...


class BoundDatasetCoupler(Protocol):
    """A coupler that is ready to choose: what :meth:`DatasetCoupler.bind` returns."""

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise sample, see :meth:`DatasetCoupler.choose`."""
        ...


class AnyCoupler(Component):
    """Declarations of both kinds of coupler. What is not declared is not guaranteed."""

    @abstractmethod
    def bind(self, inputs: Inputs) -> BoundCoupler | BoundDatasetCoupler:
        """Return the object that pairs, with what it reads of earlier stages.

        Called once per stage. A coupler that refers to no stage is that object itself.
        """

    @property
    def preserves_noise_marginal(self) -> bool:
        """Whether the paired noise is N(0, I) over many pools."""
        return False

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        """Attributes of a batch, such as ``labels``, given which the noise is still N(0, I).

        A conditional network needs its condition in here.
        """
        return frozenset()

    @property
    def independent(self) -> bool:
        """Whether noise and data are independent, so that pairs say nothing about either.

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
        """Attributes of a batch, such as ``labels``, without which it cannot pair."""
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
        """Number of noise samples drawn for each image of a pool; one of all is paired with it."""
        return 1

    def bind(self, inputs: Inputs) -> BoundCoupler:
        return self

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair a pool of images with unit-variance noise.

        A pure function: equal arguments and generator state give equal pairs, and the arguments
        are left unchanged. It is called from several threads at a time, and computes on the
        device of its arguments where it can.

        Args:
            batch: ``[N, *shape]`` images (augmented) with what is known of each.
            noise: ``[M, *shape]`` noise of unit variance, before any sigma; M is
                N * ``noises_per_image``, those of image k from k * ``noises_per_image`` on.
            generator: generator on the CPU, for every random choice.

        Returns:
            Two int64 index vectors on the CPU, of N pairs.

        Raises:
            DataError: an image, a noise or a cost is not finite (index named); or N, M do not fit.
            UsageError: the coupler pairs after :meth:`bind` alone.
        """
        raise unbound(self, "pair")


class DatasetCoupler(AnyCoupler):
    """Assigns an image of the whole data set to each noise. Implements ``choose`` or ``bind``."""

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
            noise: ``[M, *shape]`` noise of unit variance, for any M.
            generator: generator on the CPU, for every random choice.

        Returns:
            ``[M]`` int64 indices of items on the CPU.

        Raises:
            DataError: an image, a noise or a cost is not finite, named by index.
            UsageError: the coupler chooses after :meth:`bind` alone.
        """
        raise unbound(self, "choose")


# --- networks -------------------------------------------------------------------------------


class BoundNetwork(Protocol):
    """A network that is ready to be built: what :meth:`Network.bind` returns."""

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network for this data, see :meth:`Network.build`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Network(Component):
    """Settings of something that the ``train`` stage trains. Implements ``build`` or ``bind``."""

    implements: ClassVar[tuple[str, ...]] = ("build", "bind")

    output: ClassVar[type[NetworkFile]]
    """Type of the artifact of its training."""

    class_conditional: bool = setting(False, doc="give the network each item's class")

    def classes_of(self, spec: DataSpec) -> int:
        """Return the number of classes that the network is conditioned on; 0 for none.

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

        Called once per stage, and when a file of the network is loaded. ``inputs`` gives networks
        alone; a network holds one in :class:`genkit.parts.frozen.Frozen`. Its file contains theirs.
        """
        return self

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network for this data, freshly initialised from torch's global generator."""
        raise unbound(self, "build")


class Preconditioner(Component):
    """Sole owner of ``sigma_data``, of the four coefficients and of the loss weight."""

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return c_skip, c_out, c_in and c_noise for noise levels ``[B]``."""

    @abstractmethod
    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight of the denoising loss at noise levels ``[B]``."""

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the nearest supported noise levels; by default all are supported.

        Args:
            sigma: noise levels above 0, of any shape.
        """
        return sigma

    def sigma_range(self) -> tuple[float, float]:
        """Return the range to which schedules are narrowed, by default that of rounded levels.

        Churn may exceed it: only :meth:`round_sigma` applies to the levels that a solver chooses.
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
            labels: ``[B]`` int64 class indices, where the network takes them.
            augment_labels: ``[B, A]`` how the data was augmented, where the network takes that;
                None for data as it is, and for sampling.
        """
        c = self.preconditioner.coefficients(sigma)
        told = () if augment_labels is None else (augment_labels,)
        raw = self.network(as_column(c.c_in, x) * x, c.c_noise, labels, *told)
        denoised: Tensor = as_column(c.c_skip, x) * x + as_column(c.c_out, x) * raw.to(x.dtype)
        return denoised


@dataclass(frozen=True, kw_only=True)
class Denoiser(Network):
    """A network that, behind its preconditioner, estimates the clean image.

    The module that ``build`` returns is called as ``denoiser(x, sigma, labels) -> D(x; sigma)``:
    x ``[B, *shape]``, sigma ``[B]``, labels ``[B]`` int64 or None. In training a fourth argument,
    ``augment_labels`` ``[B, A]``, says how each image was augmented, where A is not 0.
    """

    output = DenoiserFile
    implements = ("build_network", "build", "bind")

    takes_augment_labels: ClassVar[bool] = False
    """Whether the raw network can be told how its images were augmented.

    It then takes ``augment_labels`` ``[B, spec.augment_labels]`` or None as a fourth argument.
    """

    preconditioner: Preconditioner = setting(
        doc="scales the network's input and output", use={"use": "edm"}
    )

    @property
    def label_dropout(self) -> float:
        """Probability that an item's class is hidden in training; a setting where it is supported.

        Above 0, a class-conditional network may also be called with labels None.
        """
        return 0.0

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the raw network F, called as ``F(x [B, *shape], c_noise [B], labels)``.

        Where it has an encoder, its method ``encode`` takes the same arguments and returns the
        features ``[B, C, h, w]`` at the lowest resolution. A discriminator may stand on them.
        """
        raise unbound(self, "build")

    def build(self, spec: DataSpec) -> Preconditioned:
        return Preconditioned(self.build_network(spec), self.preconditioner)


class Discriminator(Network):
    """A network that tells real from generated at every noise level.

    The module is called as ``discriminator(x [B, *shape], sigma [B], labels) -> logit [B]``, the
    logarithm of d / (1 - d), where d is the probability that x comes from real data.
    """

    output = DiscriminatorFile


class Classifier(Network):
    """A network that names the class of a clean image, and whose features compare images.

    The module is called as ``classifier(x [B, *shape]) -> logits [B, classes]`` and has
    ``features(x) -> [B, F]``. It may have ``head(features) -> logits``.
    """

    output = ClassifierFile


@dataclass(frozen=True)
class Imported:
    """A network that was trained elsewhere.

    Attributes:
        network: settings that build it.
        spec: of the data it was trained on.
        weights: by the names of genkit's network.
        images: it was trained for; 0 where the file does not tell.
        notes: what a user should know of it, a sentence each.
        ema_length: relative length of the power-function average that the weights are; None for
            other averages, and where it is not in the file's name.
    """

    network: Network
    spec: DataSpec
    weights: Mapping[str, Tensor]
    images: int
    notes: tuple[str, ...] = ()
    ema_length: float | None = None


class Importer(Component):
    """Reads a network from a file that another project wrote, without running any of it."""

    snapshots: ClassVar[str] = "*"
    """Pattern of the names of its files in a folder of one training, for averages of any length."""

    @abstractmethod
    def read(self, path: Path) -> Imported:
        """Return the network of a file.

        Raises:
            DataError: the file is damaged, is none of the kind, or does not fit itself.
        """


# --- training -------------------------------------------------------------------------------


class BoundObjective(Protocol):
    """An objective that is ready to compute a loss: what :meth:`Objective.bind` returns."""

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each item, see :meth:`Objective.loss`."""
        ...


class Objective(Component):
    """The loss of a training. Implements ``loss`` or ``bind``."""

    implements = ("loss", "bind")

    trains: ClassVar[type[Network]]
    """The base of the networks that it can train."""

    conditions: ClassVar[frozenset[str]] = frozenset()
    """Attributes, of ``labels`` and ``realness``, that it conditions on besides the network."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """The attributes of a batch without which it has no loss."""

    estimates_mean: ClassVar[bool] = False
    """Whether the mean of the images given ``(x, sigma, labels)`` has the lowest expected loss.

    A network that returns it, with the preconditioner of the one in training, is then passed to
    :meth:`loss`, which gives the lowest loss that any network can have on the data.
    """

    def bind(self, inputs: Inputs) -> BoundObjective:
        """Return the object that computes the loss, with what it reads of earlier stages.

        Called once, before the first step.
        """
        return self

    def loss(
        self, model: nn.Module, batch: Batch, noise: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of each item, ``[B]`` float32.

        Args:
            model: what the network's ``build`` returned.
            batch: B items, with ``quantile`` set.
            noise: ``[B, *shape]`` unit noise, already paired.
            generator: on the CPU, for draws besides ``batch.quantile``.
        """
        raise unbound(self, "loss")

    def noise_levels(self, quantile: Tensor) -> Tensor | None:
        """Return the noise levels of items by their ``quantile``, ``[B]``.

        Args:
            quantile: ``[B]`` float64 in (0, 1).

        Returns:
            None, the default, where the loss of an item does not belong to one noise level. It is
            then not reported by noise level.
        """
        return None

    def terms(self, shape: tuple[int, ...]) -> int:
        """Return the number of terms whose mean is the loss of an item, 1 by default.

        Adam's epsilon is compared with the size of the gradient. An objective whose published
        optimizer takes the gradient of a sum over elements, and whose loss here is their mean,
        returns the number of elements; epsilon is divided by it, and the steps are the published
        ones. The mean itself keeps ``gradient_clip`` and the scale of float16 gradients
        independent of the size of an image.

        Args:
            shape: shape of one item.
        """
        return 1


@dataclass(frozen=True, kw_only=True)
class Optimizer(Component):
    """Settings of how weights follow their gradient."""

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

        The trainer sets the learning rate before each step and clips the gradient. Where loss or
        gradient are not finite, a step must change nothing. The fused optimizers of torch see to
        that on the device; for any other the trainer copies weights and state before each step
        and takes the step back. So the state holds nothing but tensors, all of them from the first
        step on; the trainer checks this after the first step.

        Args:
            parameters: parameters of the network, on the device of the training.
            terms: terms whose mean is the loss, see :meth:`Objective.terms`. A constant that is
                compared with the size of the gradient, such as Adam's epsilon, is divided by it.
        """


class RunningAverage(ABC):
    """Averaged weights that follow a network in training."""

    model: nn.Module
    """The network with averaged weights, in eval mode, with gradients disabled.

    What a training leaves for later stages. Its state is saved by the trainer.
    """

    snapshot_images: int = 0
    """Images between two calls of :meth:`snapshot`; 0 for none."""

    @abstractmethod
    def update(self, model: nn.Module, images: int, batch_size: int) -> None:
        """Take one step towards the weights of ``model``, without waiting for the device.

        Args:
            model: the network after its optimizer step.
            images: images seen before this batch.
            batch_size: images in this batch.
        """

    def state(self) -> dict[str, Tensor]:
        """Return tensors besides those of :attr:`model` that :meth:`restore` takes."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`state` returned, bit for bit.

        Raises:
            KeyError: the state is that of other settings or of another network.
        """
        return

    def snapshot(self, folder: Path, images: int) -> None:
        """Write files of the average to the folder of the stage, after ``images`` images."""
        return


class Average(Component):
    """Settings of an average of the weights over a training."""

    reconstructible: ClassVar[bool] = False
    """Whether :mod:`genkit.parts.power_averages` makes other averages of its snapshots."""

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
    """A random change of the images, made before they are paired."""

    @property
    def augment_labels(self) -> int:
        """Length A of the vector that tells a network how an image was changed; 0 for none.

        A denoiser that is not told generates changed images.
        """
        return 0

    @abstractmethod
    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the same items with changed ``data``, and ``augment_labels`` where A is not 0.

        Args:
            batch: N items on any device, on which the result is computed as well.
            generator: on the CPU, for every random choice; it is one for the pool, so that what
                is drawn for an item depends on its place in the pool.
        """


@dataclass(frozen=True)
class TrainingState:
    """A training as a callback sees it.

    Attributes:
        images: images seen.
        total: images of the whole training.
        network: copy of the network under training, in eval mode, with gradients disabled.
        averaged: copy of the network with averaged weights, likewise; what the training writes.
    """

    images: int
    total: int
    network: Trained
    averaged: Trained


class BoundCallback(Protocol):
    """A callback that is ready to be called: what :meth:`Callback.bind` returns."""

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return scores and pictures of a training, see :meth:`Callback.call`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Callback(Component):
    """Observes a training. Implements ``call`` or ``bind``.

    It changes no result and is not part of a fingerprint: the networks are copies, random numbers
    and precision are restored after a call, and no pool is coupled meanwhile. Rank 0 alone makes
    the calls. One that raises ends the run; a DataError with the code ``not-finite``, as of the
    samples of a network that is not yet trained, is a warning.
    """

    implements: ClassVar[tuple[str, ...]] = ("call", "bind")

    every: int = setting(doc="images between two calls; the end is another", at_least=1)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its scores and pictures; two callbacks of a stage cannot have one in common."""
        return ()

    def check_training(self, design: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield why it cannot observe the training of a network, before anything runs.

        Args:
            design: network under training, and its data.
            networks: networks that earlier stages write, by id; without those of unknown data.
        """
        return iter(())

    def bind(self, context: Context) -> BoundCallback:
        """Return the object that is called, with what it reads of earlier stages.

        Called once, before the first step of every run of the stage.
        """
        return self

    def call(self, training: TrainingState, context: Context) -> Measurement:
        """Return scores and pictures of a training; a pure function that writes nothing.

        The stage logs the scores, writes each picture to ``NAME.png`` in place of that of the call
        before, and passes both to the trackers. Warnings are printed once.

        Args:
            training: state of the training.
            context: context of one process, with random numbers of their own in ``seed``.
        """
        raise unbound(self, "call")


class Dataset(Component):
    """Where images come from."""

    archives: ClassVar[Mapping[str, RemoteFile]] = MappingProxyType({})
    """What ``genkit data get`` downloads, by the names of the files in ``root``."""

    @abstractmethod
    def spec(self) -> DataSpec:
        """Return shape and classes without reading every item.

        Raises:
            DataError: a file is missing, unreadable, or of another shape than the rest.
        """

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser drew generated items; None for none."""
        return None

    def item_count(self) -> int | None:
        """Return the number of items, unread; None where it is unknown. Raises as ``spec`` does."""
        return None

    def held_out_part(self) -> Dataset | None:
        """Return the items that are held out of training; None, the default, for none."""
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
    """How a denoiser is sampled, for a schedule whose noise levels depend on it.

    Attributes:
        denoiser: module that is sampled, without guidance.
        coupling: what is known of the pairs of its training.
        solver: solver of the sampling ODE.
        start: state at the first noise level, as the user chose it; see :mod:`genkit.start`.
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
        """Whether its noise levels are those of its settings, without :meth:`bind`."""
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

        Called once per stage. A schedule that refers to no stage is that schedule itself.

        Raises:
            DataError: its noise levels are those of another denoiser or solver.
        """
        return self

    def sigmas(self) -> Tensor:
        """Return ``[steps + 1]`` float64 noise levels, decreasing, the last 0."""
        raise unbound(self, "sigmas")

    def within(self, lowest: float, highest: float) -> Schedule:
        """Return the schedule for a network that supports only these noise levels."""
        return self

    def sigma_range(self) -> tuple[float, float]:
        """Return the range of the noise levels above 0: the lowest and the highest.

        A schedule that takes its levels from a table may have none at the ends of its range.
        """
        sigmas = self.sigmas()
        return float(sigmas[-2]), float(sigmas[0])


class Solver(Component):
    """Integrates the probability-flow ODE (or its stochastic kin) over decreasing noise levels."""

    two_slopes: ClassVar[bool] = False
    """Whether a step combines the slope at its state with one of an evaluation marked ``inner``."""

    churns: ClassVar[bool] = False
    """Whether each step begins with ``denoise.churn``, and adds the noise that it returns."""

    @property
    def stochastic(self) -> bool:
        """Whether steps add fresh noise, so that one between equal noise levels has an effect."""
        return False

    def between(self, sigma_min: float, sigma_max: float, sigmas: Tensor) -> Solver:
        """Return the solver for a range of noise levels; itself, where it depends on none.

        Called before :meth:`solve`, and by checks. A solver whose time depends on the range, such
        as that of the VP SDE, fixes it here.

        Args:
            sigma_min: lowest noise level of the schedule, narrowed to the range of the network.
            sigma_max: highest noise level, likewise.
            sigmas: ``[steps + 1]`` noise levels over which it will be solved.

        Raises:
            DataError: the solver is undefined for the range; both ends are named.
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
            x: ``[B, *shape]`` the start, of standard deviation ``sigmas[0]``.
            sigmas: ``[steps + 1]`` decreasing noise levels, the last 0. They lie on the CPU, so
                that reading one does not synchronize with the device of ``x``.
            randn_like: fresh noise for stochastic solvers.
        """


class Latents(Component):
    """Draws the latents, the classes and the noise of samples from their seeds."""

    depends_on_device: ClassVar[bool] = False
    """Whether a CPU and a GPU draw different numbers. Samples of both are never mixed."""

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
        """Return the draws of some samples.

        The draws of a sample depend on its own seed, not on the others of its batch.

        Args:
            shape: shape of one item.
            seeds: ``[B]`` seeds of the samples; the numbers of the samples of a stage.
            classes: number of classes from which labels are drawn; 0 for none.
            device: device of the sampling.
            run_seed: seed that all samples of a run or of a stage share.
        """


class BoundGuidance(ABC):
    """A guidance with its networks; it counts how often it calls them."""

    evaluations: int = 0
    """Network calls so far, one for each call on a batch."""

    component: Guidance | None = None
    """Guidance that was bound, for messages; set by who calls its ``bind``."""

    interval: tuple[float, float] = (0.0, math.inf)
    """Lowest and highest noise level at which it acts; set by who calls ``bind``.

    Outside it, :meth:`correction` is not called. Items of one call that differ in their noise
    level may lie inside and outside; their corrections are computed together.
    """

    def begin(self) -> BoundGuidance:
        """Return the guidance of one batch of trajectories, called before their first step.

        Itself, unless something is kept from step to step: then a copy that keeps it.
        """
        return self

    def churn(self, x: Tensor, amount: float | Tensor) -> float | Tensor:
        """Return the amount of noise of the step that begins; called once a step.

        Solvers that declare ``churns`` call it, through :meth:`genkit.types.Denoise.churn`.

        Args:
            x: ``[B, *shape]`` state at which the step begins.
            amount: amount that the solver adds, as its ``s_churn``, for all items or ``[B]``.

        Returns:
            ``amount``, or one for each item: ``[B]``, on the device of the samples.
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
        """Return the addend ``[B, *shape]`` to the denoised image.

        The corrections of several guidances are summed, so that their order has no effect. A pure
        function of the arguments, unless :meth:`begin` returns a copy that keeps more; the
        correction of an item does not depend on the others of its batch.

        Args:
            x: ``[B, *shape]`` noisy state, float32.
            sigma: ``[B]`` noise levels.
            labels: ``[B]`` int64 or None.
            denoised: ``[B, *shape]`` estimate of the denoiser, without any guidance.
            inner: False for the first evaluation of a solver step; True for the others, and for
                those that correct the start.
        """


@dataclass(frozen=True, kw_only=True)
class Guidance(Component):
    """A correction of the denoised image, usable by every solver.

    A setting ``weight``, where there is one, is its strength: 0 gives no correction.
    """

    requires_score: ClassVar[bool] = False
    """Whether it corrects a score, so that ``(D(x; sigma) - x) / sigma^2`` must be one."""

    sigma_min: float = setting(0.0, doc="lowest noise level at which it acts", at_least=0.0)
    sigma_max: float | None = setting(
        None,
        doc="highest noise level at which it acts; left out or inf: any",
        above=0.0,
        infinite=True,
    )

    @property
    def interval(self) -> tuple[float, float]:
        """Lowest and highest noise level at which it acts."""
        return self.sigma_min, math.inf if self.sigma_max is None else self.sigma_max

    @property
    def adds_noise(self) -> bool:
        """Whether its :meth:`BoundGuidance.churn` may ask for noise."""
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
        """Yield why it cannot act in the steps of a solver, before anything is drawn."""
        if self.adds_noise and not solver.churns:
            yield Problem(
                (),
                "asks for fresh noise, and must be used with a solver that churns, got "
                f"{type(solver).__name__}",
                'write solver = { use = "heun" }',
                Code.CONFLICT,
            )

    @abstractmethod
    def bind(self, inputs: Inputs, denoiser: Trained) -> BoundGuidance:
        """Return the guidance with its networks. Called once per stage, not for each batch.

        Args:
            inputs: networks and other artifacts to which it refers.
            denoiser: denoiser that is guided.
        """


# --- evaluation -----------------------------------------------------------------------------


class Extractor(Component):
    """Turns images into the features in which two sets of images are compared."""

    label: ClassVar[str]
    """Name of the features in the names of scores, such as ``classifier``."""

    classifies: ClassVar[bool] = False
    """Whether a classifier computes the features, and its logits can be had of them."""

    @property
    def frechet(self) -> str:
        """Name of the Fréchet distance over these features; ``fid`` for Inception's alone."""
        return f"frechet_{self.label}"

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield why it has no features of such items; networks as for ``check_guided``."""
        return iter(())

    @abstractmethod
    def bind(self, inputs: Inputs) -> nn.Module:
        """Return a module ``[B, *shape] -> [B, F]``, on the device of ``inputs``.

        Images are float32 in [-1, 1], of 8 bits. Where a classifier computes the features, the
        module has a method ``head`` that returns logits: ``[B, F] -> [B, classes]``.
        """

    @abstractmethod
    def identity(self, inputs: Inputs) -> str:
        """Return a name with a hash, recorded with every score: equal names, equal features."""


class Features(Protocol):
    """Features of samples and reference, computed once for each extractor.

    Collective: every rank must call a method at the same point; all have the result.
    """

    def of_samples(self, extractor: Extractor) -> Tensor:
        """Return ``[N, F]`` features of the samples on the CPU, in the type of the extractor.

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
            DataError: the extractor has none.
        """
        ...


@dataclass(frozen=True)
class Subject:
    """Inputs of a metric.

    Attributes:
        samples: generated items: images as uint8, vectors as float32.
        reference: real items in the same form; None where statistics stand for them.
        denoiser: the denoiser behind the samples, without guidance; raises a DataError when called
            where it is unknown.
        features: features of both.
        coupling: what is known of the pairs that the denoiser was trained with.
    """

    samples: Batch
    reference: Batch | None
    denoiser: nn.Module
    features: Features
    coupling: Coupling | None = None


class BoundMetric(Protocol):
    """A metric that is ready to measure: what :meth:`Metric.bind` returns."""

    def measure(self, subject: Subject, context: Context) -> Measurement:
        """Return scores, curves and what they depend on."""
        ...


class Metric(Component):
    """A score of samples or of the denoiser behind them. Implements ``measure`` or ``bind``."""

    implements = ("measure", "bind")

    requires_denoiser: ClassVar[bool] = False
    """Whether it calls the denoiser, which samples from elsewhere do not have.

    It is measured once, with all samples, where those of other metrics are split into sets.
    """

    requires_labels: ClassVar[bool] = False
    """Whether it needs the classes for which the samples were drawn."""

    accepts_statistics: ClassVar[bool] = False
    """Whether it needs no more of the reference than the statistics of features."""

    higher_is_better: ClassVar[bool | None] = None
    """Whether higher scores are better; None where neither higher nor lower ones are."""

    @property
    def min_samples(self) -> int:
        """Minimum number of samples that it can measure."""
        return 1

    @property
    def min_reference(self) -> int:
        """Minimum number of reference items that it compares with; 0 where it takes none."""
        return 0

    @property
    @abstractmethod
    def scores(self) -> tuple[str, ...]:
        """Names of all its scores; two metrics of a stage cannot have one in common.

        ``nfe``, ``guidance_nfe``, and names that end in ``_std`` or ``_min`` are other columns.
        """

    def check_items(self, spec: DataSpec) -> Iterator[Problem]:
        """Yield why it cannot measure such items."""
        return iter(())

    def bind(self, inputs: Inputs) -> BoundMetric:
        """Return the object that measures; called once per stage, not for each set of samples."""
        return self

    def measure(self, subject: Subject, context: Context) -> Measurement:
        """Return scores, curves and what they depend on; the subject is left as it is.

        The facts of the samples and of the reference are added by the stage, and so is the
        identity of each extractor among its settings.
        """
        raise unbound(self, "measure")


# --- tracking -------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker follows.

    Attributes:
        name: name of the recipe.
        folder: folder for the tracker's files; need not exist.
        recipe: the recipe with all defaults, as tables.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]


class BoundTracker(ABC):
    """A tracker that follows a run. All calls come from one thread.

    It writes below the folder of the run alone. What is passed to it is a copy.
    """

    def resume(self, stage: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Take the rows that stay of earlier calls of the run; none where a stage begins anew.

        The first call for a stage that logs rows. What an earlier tracker in the same folder was
        passed of this stage, and is not among the rows, no longer holds.
        """
        return

    @abstractmethod
    def row(self, stage: str, row: Mapping[str, Any]) -> None:
        """Take a row that a stage logged: numbers, text or lists by name.

        ``images`` is the number of images seen, where the stage trains.
        """

    @abstractmethod
    def scores(self, stage: str, scores: Scores) -> None:
        """Take the scores of a stage."""

    @abstractmethod
    def picture(self, stage: str, name: str, png: bytes) -> None:
        """Take a picture, a PNG file."""

    def close(self) -> None:
        """Write what is left; the last call."""
        return


class Tracker(Component):
    """Passes the rows, scores and pictures of a run on, such as to a dashboard.

    A tracker changes no result, and is not part of a fingerprint: it may be added when a run is
    resumed. It runs in a thread, in the main process alone, and must write nothing to the terminal.
    One that raises, or that does not return for a minute, is left out with one warning, and the run
    continues. The end of the run waits ten seconds at most.
    """

    @abstractmethod
    def open(self, run: TrackedRun) -> BoundTracker:
        """Return the tracker of a run, new or resumed."""


# --- running --------------------------------------------------------------------------------


class Stage(Component):
    """One step of a recipe, run in a folder of its own."""

    shared: ClassVar[bool] = False
    """Whether every process of a run takes part, by ``context.world``; else the first one alone."""

    @property
    @abstractmethod
    def output(self) -> type[Artifact] | None:
        """Type of the artifact that it writes with ``context.record.save``; None for none.

        A plain class attribute, ``output = Samples``, will do.
        """

    @abstractmethod
    def run(self, context: Context) -> None:
        """Do the work, or resume where an earlier call in the same folder stopped or was killed.

        The results are the same bytes in either case, for one seed. Pictures may differ.
        """

    def design(self, earlier: Stages) -> Design | None:
        """Return what is known of the network that is its output; None if it is no network.

        Called before anything runs, to check the stages that refer to this one.

        Raises:
            DataError: its data is missing or invalid.
        """
        return None

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser draws the samples that are its output.

        Called before anything runs. None means that the denoiser is unknown: the samples cannot be
        scored by metrics that call it, and a wrong shape is found only when they are scored.
        """
        return None


@dataclass(frozen=True, kw_only=True)
class SamplingStage(Stage):
    """A stage that draws samples, and that the stage `sweep` can vary."""

    output = Samples

    count: int = setting(64, doc="number of samples", at_least=1)

    @property
    def depends_on_device(self) -> bool:
        """Whether a CPU and a GPU draw different samples. Samples of both are never mixed."""
        return False

    def sampler_fact(self, context: Context) -> str | None:
        """Return the fact ``sampler`` of its samples: the settings that draw them; None without.

        A sweep, whose cells differ in it, states that of the stage that it varies.
        """
        return None

    @abstractmethod
    def draw(self, context: Context) -> Samples:
        """Draw all samples without writing a file; collective: every rank returns all of them."""


Stages = Mapping[str, Stage]
"""The stages above the one that is looked at, by id."""
