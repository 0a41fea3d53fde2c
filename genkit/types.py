"""The values that travel between components. Shapes: B a batch, N any number of items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor


SEED_LIMIT = 2**63
"""Seeds of samples are from 0 to one less."""


RandnLike = Callable[["Tensor"], "Tensor"]
"""Returns unit Gaussian noise of the shape, type and device of its argument."""


class Denoise(Protocol):
    """A denoiser, guided or not, as a solver sees it.

    A wrapper passes ``inner`` on, and takes ``nearest`` and ``churn`` from the denoiser that it
    wraps.
    """

    def __call__(self, x: Tensor, sigma: Tensor, *, inner: bool = False) -> Tensor:
        """Return ``D(x; sigma)``, ``[B, *shape]``.

        Args:
            x: ``[B, *shape]`` noisy state.
            sigma: noise level above 0: 0-d, or ``[B, 1, ...]`` where that of the items differs.
            inner: False for the first evaluation of a step, at the state that the solver yields;
                True for every other one, such as the corrector of Heun's method.
        """
        ...

    def nearest(self, sigma: Tensor) -> Tensor:
        """Return the supported noise level that is nearest to a level chosen by a solver.

        Args:
            sigma: noise levels above 0, of any shape.
        """
        ...

    def churn(self, x: Tensor, amount: float) -> float | Tensor:
        """Return the amount of noise of the step that begins, which guidance may change.

        A solver that declares ``churns`` calls it before the first evaluation of each step.

        Args:
            x: ``[B, *shape]`` state at which the step begins.
            amount: amount that the solver adds, as its ``s_churn``.

        Returns:
            ``amount``, or one for each item, ``[B]``.
        """
        ...


@dataclass(frozen=True)
class DataSpec:
    """What a network must know of its data.

    Attributes:
        shape: of one item: ``(channels, height, width)`` for images, ``(dimensions,)`` for vectors.
        classes: number of classes; 0 where the data has no labels.
        realness: whether items are marked as real or generated, as a discriminator requires.
        embeddings: length of the vector that describes an item, such as a text's; 0 for none.
        augment_labels: length of the vector that says how an item was augmented; 0 for none.
    """

    shape: tuple[int, ...]
    classes: int = 0
    realness: bool = False
    embeddings: int = 0
    augment_labels: int = 0

    @property
    def attributes(self) -> frozenset[str]:
        """Which of ``labels``, ``realness`` and ``embeddings`` the items have."""
        known = {
            "labels": self.classes > 0,
            "realness": self.realness,
            "embeddings": self.embeddings > 0,
        }
        return frozenset(name for name, has in known.items() if has)

    @property
    def is_image(self) -> bool:
        """Whether an item has channels, height and width."""
        return len(self.shape) == 3


@dataclass(frozen=True)
class Batch:
    """Some items with what is known of each; a whole data set is a large batch.

    Attributes:
        data: ``[N, *shape]`` float; images range over [-1, 1]. A whole data set may hold its images
            as uint8, from 0 to 255: see :func:`genkit.tensors.to_float`.
        labels: ``[N]`` int64 class indices, or None.
        realness: ``[N]`` int64, 1 for real and 0 for generated, or None.
        quantile: ``[N]`` float64 in (0, 1), or None: where in its distribution the noise level of
            this item lies. Drawn with the pairs, so that levels do not depend on how a batch is
            cut into micro-batches or spread over devices.
        embeddings: ``[N, E]`` float vectors that describe the items, or None.
        augment_labels: ``[N, A]`` float vectors that say how the items were augmented, or None;
            zeros say that an item was not.
    """

    data: Tensor
    labels: Tensor | None = None
    realness: Tensor | None = None
    quantile: Tensor | None = None
    embeddings: Tensor | None = None
    augment_labels: Tensor | None = None

    def __len__(self) -> int:
        return self.data.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Batch:
        """Return the chosen items, every attribute alike."""
        return self.map(lambda values: values[index])

    def to(self, device: torch.device | str, *, copy: bool = False) -> Batch:
        """Return the same batch on a device; with ``copy`` no tensor shares memory with this."""
        return self.map(lambda values: values.to(device, copy=copy))

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the batch with every tensor replaced by what a function returns for it."""
        known = {name: change(t) for name, t in vars(self).items() if t is not None}
        return replace(self, **known)

    @staticmethod
    def joined(batches: Sequence[Batch]) -> Batch:
        """Return the items of several batches as one; an attribute must be in all or in none."""
        import torch

        parts = [vars(batch) for batch in batches]
        joined = {
            name: torch.cat([part[name] for part in parts])
            for name, value in parts[0].items()
            if value is not None
        }
        return replace(batches[0], **joined)

    def with_data(self, data: Tensor) -> Batch:
        """Return the same items with other values, as an augmentation makes them."""
        return replace(self, data=data)


@dataclass(frozen=True)
class Pairs:
    """Indices of paired images and noise samples: ``batch.data[data[k]]``, ``noise[noise[k]]``.

    Attributes:
        data: ``[M]`` int64 indices into the batch.
        noise: ``[M]`` int64 indices into the noise.
        gap: how far the total cost is above the least possible, as a share of it, at most: 0 for
            a proof of optimality; None where the coupler knows no bound.
        parts: how many pairs each part holds, where the pool was parted.
        entropy: renormalized entropy ``(H - log N) / log N`` of the plan P between N images and N
            noises that the pairs were drawn from, with ``H = -sum P log P``: 0 for a permutation, 1
            for independent pairs (arXiv 2506.05526); None where there is no plan.
    """

    data: Tensor
    noise: Tensor
    gap: float | None = None
    parts: tuple[int, ...] = ()
    entropy: float | None = None

    def __len__(self) -> int:
        return self.data.shape[0]


class Coefficients(NamedTuple):
    """The four coefficients of EDM's eq. 7, each ``[B]``."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


Start = Literal["auto", "noise", "corrected", "corrected-twice"]
"""Where a sampling trajectory starts, as users choose it; see :mod:`genkit.start`."""

ResolvedStart = Literal["noise", "corrected", "corrected-twice"]
"""Where a sampling trajectory starts: at sigma_max n, or with the predicted image added to it."""


@dataclass(frozen=True)
class Draws:
    """Random draws of a batch of samples.

    Attributes:
        latents: ``[B, *shape]`` unit Gaussian noise, on the device of the sampling.
        labels: ``[B]`` int64 classes, on the same device; None for a denoiser without classes.
        randn_like: noise of stochastic solvers; each call returns the next noise of every sample.
    """

    latents: Tensor
    labels: Tensor | None
    randn_like: RandnLike


class SampleResult(NamedTuple):
    """Samples as a solver returns them.

    Attributes:
        batch: ``[B, *shape]`` on the CPU in the precision of the states, neither clipped nor
            rounded, with their labels if any.
        nfe: calls of the denoiser for each sample.
        guidance_nfe: calls of guidance networks for each sample.
    """

    batch: Batch
    nfe: int
    guidance_nfe: int


@dataclass(frozen=True)
class State:
    """One point of a sampling trajectory.

    Attributes:
        x: ``[B, *shape]`` the state at noise level ``sigma``.
        sigma: noise level of ``x``, before fresh noise where that differs between items; 0 for the
            last state.
        denoised: ``D(x; sigma)``, as the solver saw it; None for the last state.
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
        x_label: what ``x`` is.
        y_label: what ``y`` is.
        log_x: draw ``x`` logarithmically.
        log_y: draw ``y`` logarithmically.
        spread: half-widths of a band around ``y``, of the same length, such as standard deviations;
            None for no band.
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
        """Whether there are as many values, and half-widths if any, as positions."""
        return len(self.x) == len(self.y) == len(self.y if self.spread is None else self.spread)


@dataclass(frozen=True)
class Measurement:
    """What a metric or a callback found.

    Attributes:
        scores: by name; names are unique among the metrics of a stage.
        curves: by name, for plots.
        facts: what the scores depend on, such as the number of neighbors. Only scores whose facts
            agree are compared, except those whose names begin with ``measured.``.
        pictures: PNG files by name.
        warnings: what a reader of the scores must know, such as their bias for few samples.
    """

    scores: Mapping[str, float]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class RemoteFile:
    """A file that a data set is published in.

    Attributes:
        url: where it lies.
        size: in bytes.
        md5: its published checksum, in hex.
    """

    url: str
    size: int
    md5: str
