from __future__ import annotations

import sys
import types
from dataclasses import dataclass

import pytest
import torch

from genkit.artifacts import DenoiserRef
from genkit.interfaces import Coupler, DatasetCoupler
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.settings import setting
from genkit.types import Pairs
from genkit_bench.pools import Pools, complete
from genkit_bench.synthetic import synthetic


@dataclass(frozen=True, kw_only=True)
class Reversed(Coupler):
    """A stranger's coupler, of the squared cost."""

    cost: str = setting("squared", doc="what it minimises")

    def pair(self, batch, noise, generator):
        index = torch.arange(len(batch))
        return Pairs(index, index.flip(0), gap=0.25)


@dataclass(frozen=True, kw_only=True)
class Picky(Coupler):
    """Needs everything that a batch may have, two noises an image, and a pool under 10."""

    @property
    def bijective(self):
        return False

    @property
    def requires(self):
        return frozenset({"labels", "realness", "embeddings"})

    @property
    def noises_per_image(self):
        return 2

    def pair(self, batch, noise, generator):
        if len(batch) >= 10:
            raise ZeroDivisionError("too\nmany")
        assert None not in (batch.labels, batch.realness, batch.embeddings)
        assert len(noise) == 2 * len(batch)
        return Pairs(torch.arange(len(batch)), 2 * torch.arange(len(batch)))


@dataclass(frozen=True, kw_only=True)
class Nearest(DatasetCoupler):
    """Chooses among the whole data set."""

    def choose(self, data, noise, generator):
        return torch.cdist(noise.flatten(1), data.data.flatten(1)).argmin(dim=1)


@dataclass(frozen=True, kw_only=True)
class Bound(Coupler):
    """Asks an earlier stage for its network."""

    denoiser: DenoiserRef = setting("denoiser", doc="a stage")

    def bind(self, inputs):
        return inputs.network(self.denoiser)


@dataclass(frozen=True, kw_only=True)
class Needy(Bound):
    """Has no default for the stage."""

    denoiser: DenoiserRef = setting(doc="a stage")


@dataclass(frozen=True, kw_only=True)
class Wrong(Coupler):
    """Returns what makes no pairs."""

    broken: str = setting("", doc="how")

    def pair(self, batch, noise, generator):
        index = torch.arange(len(batch))
        ways = {
            "short": Pairs(index[1:], index[1:]),
            "float": Pairs(index.double(), index),
            "outside": Pairs(index, index + 1),
        }
        return ways[self.broken]


@pytest.fixture
def registry(monkeypatch):
    """A registry of strangers alone, one of which cannot be imported."""
    module = types.ModuleType("strangers")
    for cls in (Reversed, Picky, Nearest, Bound, Needy, Wrong):
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "strangers", module)
    registration = Registration(Owner("strange", "stranger", "0.1"))
    for cls in (Reversed, Picky, Nearest, Bound, Needy):
        kind = "dataset-coupler" if issubclass(cls, DatasetCoupler) else "coupler"
        registration.add(kind, cls.__name__.lower(), f"strangers:{cls.__name__}")
    registration.add("coupler", "gone", "strangers:Gone")
    registry = Registry()
    registry.accept(registration)
    return registry


@pytest.fixture
def pools():
    """Pools of 64 images of 3x4x6 in 3 classes."""
    return Pools(complete(synthetic((3, 4, 6), 3, 64, 0), 0), 0, torch.device("cpu"))
