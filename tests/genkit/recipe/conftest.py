from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pytest
import torch
from torch import Tensor

from genkit.artifacts import DenoiserFile, DenoiserRef, Samples, SamplesRef, Scores
from genkit.errors import Code, DataError, Problem, SettingError
from genkit.files import expand_user
from genkit.interfaces import Component, Context, Coupler, Dataset, Inputs, Stage, Stages
from genkit.plugin.manager import Plugins
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.settings import FilePath, PathMark, setting
from genkit.types import Batch, DataSpec, Pairs


class ToyCoupler(Coupler):
    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        index = torch.arange(len(batch))
        return Pairs(index, index)


@dataclass(frozen=True, kw_only=True)
class Greedy(ToyCoupler):
    """A coupler with settings."""

    renamed: ClassVar[Mapping[str, str]] = {"metric": "cost"}

    cost: Literal["euclidean", "squared"] = setting("euclidean", doc="the cost")
    weight: float = setting(1, doc="a weight", above=0)
    every: int = setting(10, doc="how often to save", affects_result=False)


@dataclass(frozen=True, kw_only=True)
class Wrapped(ToyCoupler):
    """A coupler around another."""

    by: tuple[str, ...] = setting(doc="attributes")
    inner: Coupler = setting(doc="the coupler inside", use={"use": "greedy"})

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.by)) < len(self.by):
            raise SettingError("Wrapped", [Problem(("by",), "an attribute is named twice")])


PAIRED = {"use": "wrapped", "by": ["a"], "inner": {"use": "greedy", "cost": "squared"}}


@dataclass(frozen=True, kw_only=True)
class Toys(Dataset):
    """Data that may be missing."""

    folder: str = setting("here", doc="where")
    fakes: SamplesRef | None = setting(None, doc="samples to join")
    file: FilePath | None = setting(None, doc="a file")
    parts: tuple[Annotated[str, PathMark(names=("all",))], ...] = setting((), doc="files")
    inner: Dataset | None = setting(None, doc="more data")

    def spec(self) -> DataSpec:
        if self.folder == "nowhere":
            raise DataError("folder nowhere is missing")
        return DataSpec((2,))

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.file is not None and not expand_user(self.file).exists():
            yield Problem(("file",), f"{self.file} does not exist", code=Code.NOT_FOUND)
        if self.folder == "odd":
            yield Problem(("folder",), "is odd")

    def load(self, inputs: Inputs) -> Batch:
        return Batch(torch.zeros(4, 2))


class ToyStage(Stage):
    def run(self, context: Context) -> None:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Train(ToyStage):
    """Leaves a denoiser."""

    output = DenoiserFile

    data: Dataset = setting(doc="the data", inherit="data")
    coupler: Coupler = setting(doc="the coupling", use={"use": "random"})
    extra: Coupler | None = setting(None, doc="another")
    paired: Coupler = setting(doc="a third", use=PAIRED)
    images: int = setting(doc="how many images", at_least=1)
    batch_size: int = setting(4, doc="batch", at_least=1)
    pool_size: int = setting(8, doc="pool")
    rate: float | None = setting(None, doc="rate")
    vary: Mapping[str, Any] = setting({}, doc="anything")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        self.data.spec()
        if self.pool_size < self.batch_size:
            yield Problem(("pool_size",), f"{self.pool_size} is less than a batch")


@dataclass(frozen=True, kw_only=True)
class Sample(ToyStage):
    """Leaves samples."""

    output = Samples

    denoiser: DenoiserRef = setting(doc="which denoiser")
    couplers: tuple[Coupler, ...] = setting((), doc="some couplers")
    others: tuple[SamplesRef, ...] = setting((), doc="other samples")
    span: tuple[float, float] = setting((0.0, 1.0), doc="a span")

    def check(self, earlier: Stages) -> Iterator[Problem]:
        trained = earlier[self.denoiser]
        assert isinstance(trained, Train)
        if trained.images == 13:
            yield Problem(("denoiser",), "was trained on 13 images")


@dataclass(frozen=True, kw_only=True)
class Broken(ToyStage):
    """Has an annotation that cannot be resolved."""

    output = Scores
    what: Nowhere = setting(doc="nothing")  # noqa: F821


@dataclass(frozen=True, kw_only=True)
class Unwritable(ToyStage):
    """Has a field that no recipe can write."""

    output = "scores"
    what: tuple[set[int], ...] = setting((), doc="nothing")


@pytest.fixture
def registry() -> Registry:
    def target(cls: type[Component]) -> str:
        return f"{cls.__module__}:{cls.__name__}"

    registration = Registration(Owner("toys", "toy-box", "1.0"))
    registration.add("coupler", "random", "genkit.independent:Random")
    registration.add("coupler", "greedy", target(Greedy))
    registration.add("coupler", "wrapped", target(Wrapped))
    registration.add("dataset", "toys", target(Toys))
    registration.add("stage", "train", target(Train))
    registration.add("stage", "sample", target(Sample))
    registration.add("stage", "broken", target(Broken))
    registration.add("stage", "unwritable", target(Unwritable))
    registration.add("stage", "absent", "genkit_no_such_module:Absent")
    registry = Registry()
    registry.accept(registration)
    return registry


@pytest.fixture
def plugins(registry: Registry) -> Plugins:
    return Plugins(registry, (), ())
