"""Base classes of components, networks, stages and their inputs, which refer to each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import nn

from genkit.artifacts import Artifact, NetworkFile, Record, SamplingCost
from genkit.artifacts.coupling import Coupling
from genkit.errors import Code, DataError, Problem
from genkit.fields import Settings
from genkit.interfaces.binding import BoundNetwork, unbound
from genkit.interfaces.functions import FunctionCallback
from genkit.settings import setting
from genkit.tensors import network_digest
from genkit.types import DataSpec
from genkit.world import World

A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, kw_only=True)
class Component(Settings, ABC):
    """Base of everything that a recipe selects with the key ``use``.

    Raises:
        SettingError: a value does not have the type or range of its setting.
    """

    is_component = True

    source: ClassVar[str] = ""
    """Source of the method: paper and equation."""

    implements: ClassVar[tuple[str, ...]] = ()
    """Names of methods of which a subclass must implement at least one; may be empty."""

    def check(self, earlier: Stages) -> Iterator[Problem]:
        """Yield the mistakes that concern several settings or earlier stages.

        Called before anything runs; must be fast and write no files. Keys are relative to this
        component. A :class:`~genkit.errors.DataError` raised here is reported like a problem.
        """
        return iter(())

    def version(self) -> str:
        """Return a hash of the files that the component reads.

        The hash is empty if the settings alone determine the result. It is part of the fingerprint
        of every stage that contains this component. Raises DataError if a file is unreadable.
        """
        return ""


@dataclass(frozen=True)
class Design:
    """Settings and data of a network, as far as they are known before training.

    Attributes:
        settings: settings from which the network is built.
        spec: shape and attributes of the training data.
        stage: id of the stage that trains the network; empty outside of a recipe.
        denoisers: map from the id of each stage on whose denoiser a discriminator is trained to the
            setting that refers to it: ``data``, ``network`` or ``objective``.
        gradient_only: as in :class:`genkit.artifacts.NetworkFile`.
        denoiser_digest: as in :class:`genkit.artifacts.NetworkFile`; None before training.
    """

    settings: Network
    spec: DataSpec
    stage: str = field(default="", kw_only=True)
    denoisers: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    gradient_only: bool = field(default=False, kw_only=True)
    denoiser_digest: str | None = field(default=None, kw_only=True)

    @property
    def digest(self) -> str | None:
        """Digest of weights and preconditioner; None before training."""
        return None

    @property
    def classes(self) -> int:
        """Number of classes on which the network is conditioned; 0 if it is unconditional."""
        return self.settings.classes_of(self.spec)

    def misfits(self, denoiser: Design) -> Iterator[Problem]:
        """Yield a problem if the network does not fit the samples and classes of a denoiser."""
        shape, own = denoiser.spec.shape, self.spec.shape
        if own != shape:
            reason = f"must be trained on items of the denoiser's shape {shape}, got {own}"
            yield Problem((), reason, "choose a network that was trained on items of this shape")
        elif self.classes not in (0, classes := denoiser.classes):
            reason = f"must be conditioned on the denoiser's {classes} classes or on none, got "
            hint = "choose a network that is not class-conditional, or a different denoiser"
            yield Problem((), f"{reason}{self.classes}", hint)
        elif others := [name for name in self.denoisers if denoiser.stage not in ("", name)]:
            yield Problem(
                (),
                f'must be trained for the denoiser that it guides, "{denoiser.stage}", got one '
                f'whose {self.denoisers[others[0]]} uses "{others[0]}"',
                f'train it for "{denoiser.stage}"',
                Code.WRONG_REFERENCE,
            )
        elif self.denoiser_digest and denoiser.digest not in (None, self.denoiser_digest):
            reason = "must be trained for the denoiser that it guides, got one for another denoiser"
            yield Problem((), reason, "train it for this denoiser", Code.CONFLICT)


@dataclass(frozen=True)
class Trained(Design):
    """A trained network.

    Attributes:
        module: module with averaged weights, in eval mode, on the device, with gradients disabled.
        coupling: declarations of the coupler with which it was trained; None if unknown.
    """

    module: nn.Module
    coupling: Coupling | None = None

    @cached_property
    def digest(self) -> str:
        """Digest of weights and preconditioner, computed once for this object."""
        return network_digest(self.module)


class Inputs(Protocol):
    """Artifacts of earlier stages, and the device.

    A stage can read the stages to which its settings refer, directly or through other stages.
    Reading any other stage raises PluginError, since a change of its results would not be detected.
    """

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        ...

    def network(self, stage: str) -> Trained:
        """Return the trained network that a stage wrote, on the device."""
        ...

    def read(self, stage: str, artifact: type[A]) -> A:
        """Return the artifact of a stage, with its tensors on the CPU.

        Raises:
            DataError: the file is damaged.
            PluginError: the stage writes an artifact of a different type.
        """
        ...

    def digest(self, stage: str) -> str:
        """Return the SHA-256 of the artifact file of a stage, in hexadecimal."""
        ...


class Context(Inputs, Protocol):
    """Inputs, outputs and services of a running stage."""

    @property
    def folder(self) -> Path:
        """Folder of the stage, for files besides those that the record writes."""
        ...

    @property
    def record(self) -> Record:
        """Writer of the stage's artifact, pictures, rows of metrics and checkpoints."""
        ...

    @property
    def world(self) -> World:
        """Processes that run the stage; rank 0 writes its files."""
        ...

    @property
    def functions(self) -> Sequence[FunctionCallback]:
        """Functions of the caller's script that a training stage calls."""
        ...

    def seed(self, *purpose: str | int) -> int:
        """Return a seed, a function of the seed of the run, the id of the stage and ``purpose``."""
        ...

    def generator(self, *purpose: str | int) -> torch.Generator:
        """Return a CPU generator with the seed ``seed(*purpose)``."""
        ...

    def stage(self, stage: str) -> Stage:
        """Return the settings of an earlier stage."""
        ...

    def results(self, stage: str) -> Path:
        """Return the folder of an earlier stage, in which nothing may be changed."""
        ...

    def costs(self, stage: str) -> Sequence[SamplingCost]:
        """Return the sampling costs that an earlier stage wrote; empty if it wrote none.

        Raises:
            DataError: the file is damaged.
        """
        ...

    def describe(self, component: Component) -> dict[str, Any]:
        """Return the recipe table of a component, including all defaults."""
        ...

    def warn(self, text: str) -> None:
        """Print a warning on rank 0; the same text is printed only once."""
        ...

    def advance(
        self, done: int, total: int, unit: str, loss: float | None = None, step: int | None = None
    ) -> None:
        """Report that ``done`` of ``total`` units are finished; also call it with ``done`` = 0."""
        ...

    def stop_requested(self) -> bool:
        """Return whether to stop: the stage must then save and raise InterruptedRun. Collective."""
        ...

    def single_process(self) -> Context:
        """Return a context of this process alone, none of whose calls is collective."""
        ...


@dataclass(frozen=True, kw_only=True)
class Network(Component):
    """Settings of a network. The stage `train` trains it. Implements ``build`` or ``bind``."""

    implements: ClassVar[tuple[str, ...]] = ("build", "bind")

    output: ClassVar[type[NetworkFile]]
    """Type of the artifact in which the trained network is saved."""

    class_conditional: bool = setting(False, doc="condition the network on the class of each item")

    def classes_of(self, spec: DataSpec) -> int:
        """Return the number of classes on which the network is conditioned; 0 if unconditional.

        Raises:
            DataError: the network is class-conditional, and the data has no labels.
        """
        if self.class_conditional and not spec.classes:
            raise DataError(
                "class_conditional must be false if the data has no labels, got true; "
                "write class_conditional = false or choose a data set with labels",
                Code.MISSING_ATTRIBUTE,
            )
        return spec.classes if self.class_conditional else 0

    def bind(self, inputs: Inputs) -> BoundNetwork:
        """Return the object that builds the network, with the networks of earlier stages in it.

        Called once per stage, and when a file of the network is loaded. ``inputs`` provides only
        networks. Wrap each in :class:`genkit.parts.frozen.Frozen`; all are saved with the network.
        """
        return self

    def build(self, spec: DataSpec) -> nn.Module:
        """Return a new network for data of ``spec``, initialized with torch's global generator."""
        raise unbound(self, "build")


class Stage(Component):
    """One step of a recipe, run in a folder of its own."""

    shared: ClassVar[bool] = False
    """Whether every rank runs the stage, see ``context.world``; otherwise only rank 0 does."""

    @property
    @abstractmethod
    def output(self) -> type[Artifact] | None:
        """Type of the artifact that the stage writes with ``context.record.save``, or None.

        A subclass can define a class attribute instead, such as ``output = Samples``.
        """

    @abstractmethod
    def run(self, context: Context) -> None:
        """Run the stage, or resume an earlier call in this folder that was stopped or killed.

        A resumed stage must write the same bytes as an uninterrupted one, except for pictures.
        """

    def design(self, earlier: Stages) -> Design | None:
        """Return the design of the network that the stage writes; None if it writes no network.

        Called before anything runs, to check the stages that refer to this one.

        Raises:
            DataError: the training data is missing or invalid.
        """
        return None

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser draws the samples of this stage.

        Called before anything runs. None means that the denoiser is unknown. Metrics that call the
        denoiser then cannot be used, and a wrong shape is reported only when samples are scored.
        """
        return None

    def work(self, earlier: Stages) -> float:
        """Estimate the number of forward passes of a network, counted per item; 0 if unknown.

        The progress display weights stages by it. A backward pass counts as two forward passes.
        """
        return 0.0


Stages = Mapping[str, Stage]
"""The stages of a recipe before the one that is checked, by id."""
