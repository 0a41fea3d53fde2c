"""Define the values that are passed between components.

In shapes, B is the batch size, and N and M are numbers of items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SEED_LIMIT = 2**63
"""Exclusive upper bound of the seeds of samples; the lower bound is 0."""


RandnLike = Callable[["Tensor"], "Tensor"]
"""Function that returns unit Gaussian noise of the shape, dtype and device of its argument."""


class Denoise(Protocol):
    """A denoiser, guided or not, as it is passed to a solver.

    A wrapper must forward ``inner``, ``nearest`` and ``churn`` to the wrapped denoiser.
    """

    def __call__(self, x: Tensor, sigma: Tensor, *, inner: bool = False) -> Tensor:
        """Return ``D(x; sigma)``, ``[B, *shape]``.

        Args:
            x: ``[B, *shape]`` noisy state.
            sigma: noise level above 0: 0-d, or ``[B, 1, ...]`` if it differs between items.
            inner: False for the first evaluation of a step, at the yielded state; True for all
                others, such as the corrector of Heun's method.
        """
        ...

    def nearest(self, sigma: Tensor) -> Tensor:
        """Return the supported noise levels nearest to levels that a solver chose.

        Args:
            sigma: noise levels above 0, of any shape.
        """
        ...

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        """Return the amount of noise for the next step, which guidance may change.

        A solver that declares ``churns`` calls it before the first evaluation of each step.

        Args:
            x: ``[B, *shape]`` state at the beginning of the step.
            amount: amount that the solver adds, its ``s_churn``.

        Returns:
            The changed or unchanged amount: a number, or one per item, ``[B]``.
        """
        ...


@dataclass(frozen=True)
class DataSpec:
    """Shape and attributes of the items of a data set, from which networks are built.

    Attributes:
        shape: shape of an item: ``(channels, height, width)`` for images, ``(dimensions,)`` for
            vectors.
        classes: number of classes; 0 for data without labels.
        realness: whether items are marked as real or generated, as a discriminator requires.
        embeddings: length of the conditioning vector of an item, such as a text embedding; 0 if
            there is none.
        augment_labels: length of the vector that describes an augmentation; 0 if there is none.
    """

    shape: tuple[int, ...]
    classes: int = 0
    realness: bool = False
    embeddings: int = 0
    augment_labels: int = 0

    @property
    def attributes(self) -> frozenset[str]:
        """Names of the items' attributes: a subset of ``labels``, ``realness``, ``embeddings``."""
        has = {"labels": self.classes, "realness": self.realness, "embeddings": self.embeddings}
        return frozenset(name for name, value in has.items() if value)

    @property
    def is_image(self) -> bool:
        """Whether an item has channels, height and width."""
        return len(self.shape) == 3


def _summary(value: object) -> str:
    """Return the attributes of a value that differ from None and (), tensors as type and shape."""
    parts = []
    for name, item in vars(value).items():
        if hasattr(item, "dtype"):
            item = f"{str(item.dtype).removeprefix('torch.')}{list(item.shape)}"
        if item not in (None, ()):
            parts.append(f"{name}={item}")
    return f"{type(value).__name__}({', '.join(parts)})"


@dataclass(frozen=True)
class Batch:
    """Items with their attributes: a batch, or a whole data set.

    Attributes:
        data: ``[N, *shape]`` float; images are in [-1, 1]. Images of a whole data set may be uint8,
            from 0 to 255; see :func:`genkit.tensors.to_float`.
        labels: ``[N]`` int64 class indices, or None.
        realness: ``[N]`` int64, 1 for real and 0 for generated items, or None.
        quantile: ``[N]`` float64 in (0, 1), or None: quantiles of the items' noise levels in the
            noise distribution. They are drawn together with the pairs, so that noise levels do not
            depend on micro-batches or on the number of ranks.
        embeddings: ``[N, E]`` float conditioning vectors of the items, or None.
        augment_labels: ``[N, A]`` float vectors that describe the augmentations, or None; zeros
            for an item without augmentation.
    """

    data: Tensor
    labels: Tensor | None = None
    realness: Tensor | None = None
    quantile: Tensor | None = None
    embeddings: Tensor | None = None
    augment_labels: Tensor | None = None

    __repr__ = _summary

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Batch:
        """Return the items at an index, with all attributes."""
        return self.map(lambda values: values[index])

    def to(self, device: torch.device | str, *, copy: bool = False) -> Batch:
        """Return the batch on a device; with ``copy``, no tensor shares memory with this batch."""
        return self.map(lambda values: values.to(device, copy=copy))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with a function applied to every tensor."""
        changed = {name: change(t) for name, t in vars(self).items() if t is not None}
        return replace(self, **changed)

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """Return the concatenation of batches. All must have the same attributes."""
        import torch

        parts = [vars(batch) for batch in batches]
        joined = {
            name: torch.cat([part[name] for part in parts])
            for name, value in parts[0].items()
            if value is not None
        }
        return replace(batches[0], **joined)

    def with_data(self, data: Tensor) -> Batch:
        """Return the batch with new ``data``, such as augmented images."""
        return replace(self, data=data)


@dataclass(frozen=True)
class Pairs:
    """Indices of paired images and noise samples: ``batch.data[data[k]]``, ``noise[noise[k]]``.

    Attributes:
        data: ``[M]`` int64 indices of images in the batch.
        noise: ``[M]`` int64 indices of noise samples.
        gap: upper bound of the relative excess of the total cost over the minimum; 0 for a proven
            optimum, None if the coupler computes no bound.
        parts: number of pairs in each group, if the pool was divided into groups.
        entropy: normalized entropy ``(H - log N) / log N``, ``H = -sum P log P``, of the transport
            plan P from which the pairs were drawn, between N images and N noise samples: 0 for a
            permutation, 1 for the independent coupling (arXiv 2506.05526). None if there is no
            plan.
    """

    data: Tensor
    noise: Tensor
    gap: float | None = None
    parts: tuple[int, ...] = ()
    entropy: float | None = None

    __repr__ = _summary

    def __len__(self) -> int:
        return self.data.shape[0]


class Coefficients(NamedTuple):
    """The four coefficients of EDM's eq. 7, each ``[B]``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


Start = Literal["auto", "noise", "corrected", "corrected-twice"]
"""Start of a sampling trajectory, as users choose it; see :mod:`genkit.start`."""

ResolvedStart = Literal["noise", "corrected", "corrected-twice"]
"""Start of a sampling trajectory other than ``auto``."""


@dataclass(frozen=True)
class Draws:
    """Random draws of a batch of samples.

    Attributes:
        latents: ``[B, *shape]`` unit Gaussian noise, on the device used for sampling.
        labels: ``[B]`` int64 classes, on the same device; None for a denoiser without classes.
        randn_like: function for stochastic solvers; each call returns new noise.
    """

    latents: Tensor
    labels: Tensor | None
    randn_like: RandnLike


class SampleResult(NamedTuple):
    """Samples and the number of network calls.

    Attributes:
        batch: ``[B, *shape]`` samples on the CPU in the precision of the states, neither clipped
            nor rounded, with labels if any.
        nfe: number of calls of the denoiser per sample.
        guidance_nfe: number of calls of guidance networks per sample.
    """

    batch: Batch
    nfe: int
    guidance_nfe: int


@dataclass(frozen=True)
class State:
    """One point of a sampling trajectory.

    Attributes:
        x: ``[B, *shape]`` state at noise level ``sigma``.
        sigma: noise level of ``x``, 0 for the last state. If the amount of churn differs between
            items, it is the noise level before churn.
        denoised: ``D(x; sigma)``, with guidance; None for the last state.
    """

    x: Tensor
    sigma: float
    denoised: Tensor | None


@dataclass(frozen=True)
class Curve:
    """A line for a plot.

    Attributes:
        x: positions, such as noise levels.
        y: values, of the same length.
        x_label: label of the x axis.
        y_label: label of the y axis.
        log_x: whether the x axis is logarithmic.
        log_y: whether the y axis is logarithmic.
        spread: half-widths of a band around ``y``, of the same length, such as standard deviations;
            None to draw no band.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False
    spread: tuple[float, ...] | None = None

    @property
    def consistent(self) -> bool:
        """Whether positions, values and half-widths have the same length."""
        return len(self.x) == len(self.y) == len(self.y if self.spread is None else self.spread)


@dataclass(frozen=True)
class Measurement:
    """Result of a metric or a callback.

    Attributes:
        scores: map from name to score; a name is unique among the metrics of a stage.
        curves: map from name to curve, for plots.
        facts: map from the name of a setting that the scores depend on to its value, such as the
            number of neighbors. Scores are compared only if their facts agree, apart from facts
            named ``measured.*``.
        pictures: map from name to the content of a PNG file.
        warnings: limitations of the scores, such as their bias for few samples.
    """

    scores: Mapping[str, float]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class RemoteFile:
    """A published file of a data set.

    Attributes:
        url: URL of the file.
        size: size in bytes.
        md5: published MD5, in hex.
    """

    url: str
    size: int
    md5: str
