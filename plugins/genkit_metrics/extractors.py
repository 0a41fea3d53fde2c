"""Extractors without a published network: features of a trained classifier, and plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from torch import Tensor, nn

from genkit.artifacts import ClassifierRef
from genkit.errors import Problem
from genkit.interfaces import Design, Extractor, Inputs
from genkit.settings import setting
from genkit.types import DataSpec


@runtime_checkable
class ClassifierFeaturesModule(Protocol):
    """The module of an extractor whose features determine the probabilities of classes."""

    def __call__(self, items: Tensor, /) -> Tensor:
        """Return the features ``[B, F]`` of items ``[B, *shape]``."""
        ...

    def head(self, features: Tensor, /) -> Tensor:
        """Return the logits ``[B, classes]`` of features ``[B, F]``."""
        ...


class _Features(nn.Module):
    """The features of a classifier, and its ``head`` where it has one."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        if callable(head := getattr(classifier, "head", None)):
            self.head = head

    def forward(self, x: Tensor) -> Tensor:
        features = cast(Callable[[Tensor], Tensor], self.classifier.features)
        return features(x)


@dataclass(frozen=True, kw_only=True)
class ClassifierFeatures(Extractor):
    """The last hidden activations of a classifier that an earlier stage trained."""

    source = "in the place of Inception in arXiv 1706.08500, for data unlike photographs"
    label = "classifier"

    classifier: ClassifierRef = setting(doc="stage that trained the classifier")

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        found = networks.get(self.classifier)
        if found and found.spec.shape != spec.shape:
            yield Problem(
                ("classifier",),
                f"must be trained on items of the shape {spec.shape}, got {found.spec.shape}",
                "choose a classifier that was trained on such data",
            )

    def bind(self, inputs: Inputs) -> nn.Module:
        return _Features(inputs.network(self.classifier).module)

    def identity(self, inputs: Inputs) -> str:
        return f"classifier sha256:{inputs.digest(self.classifier)}"


@dataclass(frozen=True, kw_only=True)
class Pixels(Extractor):
    """The values of an item themselves, flattened; for vectors and tiny images."""

    label = "pixels"

    def bind(self, inputs: Inputs) -> nn.Module:
        return nn.Flatten()

    def identity(self, inputs: Inputs) -> str:
        return "pixels"
