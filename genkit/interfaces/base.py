"""Bases that name each other: components, networks and stages, and what they are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import nn

from genkit.artifacts import Artifact, NetworkFile, Record, SamplingCost
from genkit.artifacts.coupling import Coupling
from genkit.errors import Code, DataError, Problem, UsageError
from genkit.fields import Settings
from genkit.settings import setting
from genkit.types import DataSpec
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


Stages = Mapping[str, Stage]
"""The stages above the one that is checked, by id."""
