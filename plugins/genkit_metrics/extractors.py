"""Extractors that use no published network: features of your own classifier, and pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Protocol, cast, runtime_checkable

from torch import Tensor, nn

from genkit.artifacts import ClassifierFile, ClassifierRef
from genkit.errors import DataError, Problem
from genkit.files import expand_user
from genkit.interfaces import Design, Extractor, Inputs, Stages
from genkit.networks import code_of_network, load_network
from genkit.plugin.manager import load_plugins
from genkit.settings import PathMark, setting
from genkit.tensors import file_digest, require_unchanged
from genkit.types import DataSpec


@runtime_checkable
class ClassifierFeaturesModule(Protocol):
    """Module of an extractor that can also compute class logits from its features."""

    def __call__(self, items: Tensor, /) -> Tensor:
        """Return the features ``[B, F]`` of items ``[B, *shape]``."""
        ...

    def head(self, features: Tensor, /) -> Tensor:
        """Return the logits ``[B, classes]`` of features ``[B, F]``."""
        ...


class _Features(nn.Module):
    """Module that returns the features of a classifier, with its ``head`` if it has one."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier
        if callable(head := getattr(classifier, "head", None)):
            self.head = head

    def forward(self, x: Tensor) -> Tensor:
        features = cast(Callable[[Tensor], Tensor], self.classifier.features)
        return features(x)


SHIPPED = {"digits": Path(__file__).with_name("digits-classifier.safetensors")}
"""Dict from the names of classifiers in genkit to their files.

`recipes/digits_classifier.toml` trains "digits".
"""


@dataclass(frozen=True, kw_only=True)
class ClassifierFeatures(Extractor):
    """The last hidden activations of a classifier that is in a file or trained by a stage.

    Scores are comparable only if they use the same classifier, so prefer a fixed file.
    ``file = "digits"`` is a classifier of 8x8 digits that is included in genkit.
    """

    source = "replaces Inception in arXiv 1706.08500 for data other than photographs"
    label = "classifier"
    classifies = True

    file: Annotated[str, PathMark(names=tuple(SHIPPED))] | None = setting(
        None, doc='path of a file of a classifier, written by `genkit export`, or "digits"'
    )
    classifier: ClassifierRef | None = setting(
        None, doc="id of the stage that trains the classifier, instead of a file"
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if (self.file is None) == (self.classifier is None):
            given = "both" if self.file else "neither"
            reason = f"must be set if and only if classifier is not set, got {given}"
            yield Problem(("file",), reason, 'write file = "digits", or the path of a file')
        elif self.file is not None:
            try:
                self._outline()
            except DataError as error:
                hint = "write the path of a file of a classifier, written by `genkit export`"
                yield Problem(("file",), str(error), hint, error.code)

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        if self.file is not None:
            try:
                key, trained = "file", self._outline().spec
            except DataError:  # reported by `check`
                return
        else:
            design = networks.get(self.classifier or "")
            key, trained = "classifier", design.spec if design else spec
        if trained.shape != spec.shape:
            yield Problem(
                (key,),
                f"must be trained on items of shape {spec.shape}, got {trained.shape}",
                "use a classifier that was trained on this data",
            )

    def version(self) -> str:
        if self.file is None:
            return ""
        return f"{self._digest} {code_of_network(self._path(), load_plugins().registry)}"

    def bind(self, inputs: Inputs) -> nn.Module:
        if self.classifier is not None:
            return _Features(inputs.network(self.classifier).module)
        registry = load_plugins().registry
        trained = load_network(self._path(), registry, inputs.device, ClassifierFile)
        require_unchanged(self._path(), self._digest)
        return _Features(trained.module)

    def identity(self, inputs: Inputs) -> str:
        digest = inputs.digest(self.classifier) if self.classifier else self._digest
        return f"classifier sha256:{digest}"

    @cached_property
    def _digest(self) -> str:
        return file_digest(self._path())

    def _path(self) -> Path:
        return SHIPPED.get(self.file or "") or expand_user(self.file or "")

    def _outline(self) -> ClassifierFile:
        return ClassifierFile.outline(self._path())


@dataclass(frozen=True, kw_only=True)
class Pixels(Extractor):
    """The flattened values of an item, for vectors and tiny images."""

    label = "pixels"

    def bind(self, inputs: Inputs) -> nn.Module:
        return nn.Flatten()

    def identity(self, inputs: Inputs) -> str:
        return "pixels"
