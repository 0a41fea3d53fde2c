"""Bases of metrics and of the features that they compare."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor, nn

from genkit.artifacts.coupling import Coupling
from genkit.artifacts.scores import score_words
from genkit.artifacts.statistics import Statistics
from genkit.errors import Problem
from genkit.interfaces.base import Component, Context, Design, Inputs
from genkit.interfaces.binding import unbound
from genkit.types import Batch, DataSpec, Measurement


class Extractor(Component):
    """Computes features of images, by which two sets of images are compared."""

    label: ClassVar[str]
    """Name of the features in the names of scores, such as ``classifier``."""

    classifies: ClassVar[bool] = False
    """Whether the features are those of a classifier, and determine its logits."""

    @property
    def frechet(self) -> str:
        """Score name of the Fréchet distance of these features; ``fid`` only for Inception."""
        return f"frechet_{self.label}"

    def check_items(self, spec: DataSpec, networks: Mapping[str, Design]) -> Iterator[Problem]:
        """Yield a problem if the extractor cannot be applied to items.

        Args:
            spec: shape and attributes of the items.
            networks: networks to which the extractor may refer, by the value of the reference.
        """
        return iter(())

    @abstractmethod
    def bind(self, inputs: Inputs) -> nn.Module:
        """Return a module ``[B, *shape] -> [B, F]``, on the device of ``inputs``.

        It is called with float32 images, whose values are 8-bit values scaled to [-1, 1]. If
        ``classifies`` is true, it has a method ``head`` with logits: ``[B, F] -> [B, classes]``.
        """

    @abstractmethod
    def identity(self, inputs: Inputs) -> str:
        """Return a name with a hash, saved with every score. Equal names imply equal features."""


class Features(Protocol):
    """Features of samples and reference, computed once per extractor.

    Collective: every rank must call a method at the same point, and every rank gets the result.
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
            DataError: the file of statistics contains no statistics for the extractor.
        """
        ...

    def logits(self, extractor: Extractor, features: Tensor) -> Tensor:
        """Return the logits ``[N, classes]`` of features ``[N, F]``, on the CPU.

        Raises:
            DataError: the features are not those of a classifier.
        """
        ...


@dataclass(frozen=True)
class Subject:
    """Inputs of a metric.

    Attributes:
        samples: generated items; images as uint8, vectors as float32.
        reference: real items in the same form; None if there are only their statistics.
        denoiser: denoiser that drew the samples, without guidance. If it is unknown, a call raises
            a DataError.
        features: features of samples and reference.
        coupling: declarations of the coupler with which the denoiser was trained; None if unknown.
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
    """Whether the metric calls the denoiser.

    The denoiser is unknown if another program drew the samples. A metric that calls it is computed
    once for all samples, even if other metrics are computed for several sets of samples.
    """

    requires_labels: ClassVar[bool] = False
    """Whether the metric requires the classes for which the samples were drawn."""

    accepts_statistics: ClassVar[bool] = False
    """Whether the metric can be computed from statistics of features of the reference items."""

    higher_is_better: ClassVar[bool | None] = None
    """Whether higher scores are better; None if neither higher nor lower scores are."""

    @property
    def min_samples(self) -> int:
        """Min number of samples for which the metric can be computed."""
        return 1

    @property
    def min_reference(self) -> int:
        """Min number of reference items; 0 for a metric without reference."""
        return 0

    @property
    @abstractmethod
    def scores(self) -> tuple[str, ...]:
        """Names of all scores of the metric, unique among the metrics of a stage.

        ``nfe``, ``guidance_nfe`` and the endings ``_std`` and ``_min`` are reserved.
        """

    def words(self, score: str) -> str:
        """Return a score in words, for titles and axes, such as "Fréchet distance, pixels"."""
        return score_words(score)

    def check_items(self, spec: DataSpec) -> Iterator[Problem]:
        """Yield a problem if the metric cannot be computed for items of this kind."""
        return iter(())

    def bind(self, inputs: Inputs) -> BoundMetric:
        """Return the object that computes the scores.

        Called once per stage, not once per set of samples.
        """
        return self

    def measure(self, subject: Subject, context: Context) -> Measurement:
        """Return scores, curves and facts. Must not modify the subject.

        The stage adds the facts of samples and reference, and the identities of all extractors in
        the settings.
        """
        raise unbound(self, "measure")
