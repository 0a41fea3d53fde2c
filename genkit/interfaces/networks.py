"""Bases of networks, of their preconditioners and of their importers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from genkit.artifacts import ClassifierFile, DenoiserFile, DiscriminatorFile
from genkit.interfaces.base import Component, Network
from genkit.interfaces.binding import unbound
from genkit.settings import setting
from genkit.tensors import as_column
from genkit.types import Coefficients, DataSpec


class Preconditioner(Component):
    """Defines ``sigma_data``, the four coefficients of a denoiser, and the loss weight."""

    @abstractmethod
    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Return c_skip, c_out, c_in and c_noise for noise levels ``[B]``."""

    @abstractmethod
    def weight(self, sigma: Tensor) -> Tensor:
        """Return the weight of the denoising loss at noise levels ``[B]``."""

    def round_sigma(self, sigma: Tensor) -> Tensor:
        """Return the nearest supported noise levels; by default all levels are supported.

        Args:
            sigma: noise levels above 0, of any shape.
        """
        return sigma

    def sigma_range(self) -> tuple[float, float]:
        """Return the min and the max noise level to which schedules are clipped.

        By default, they are the min and the max of :meth:`round_sigma`. Churn may exceed the range:
        noise levels that a solver chooses are rounded, not clipped.
        """
        ends = torch.tensor([0.0, torch.inf], dtype=torch.float64)
        lowest, highest = self.round_sigma(ends).tolist()
        return lowest, highest


class Preconditioned(nn.Module):
    """``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)`` (EDM, arXiv 2206.00364, eq. 7).

    Args:
        network: ``F``, called as ``network(x, c_noise, labels)`` with ``c_noise`` ``[B]``, and with
            ``augment_labels`` as a fourth argument unless it is None.
        preconditioner: preconditioner that defines the four coefficients and the loss weight.
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
            labels: ``[B]`` int64 class indices; None for an unconditional network.
            augment_labels: ``[B, A]`` description of the augmentation of each item, for a network
                with this input; None for data without augmentation, and in sampling.
        """
        c = self.preconditioner.coefficients(sigma)
        extra = () if augment_labels is None else (augment_labels,)
        raw = self.network(as_column(c.c_in, x) * x, c.c_noise, labels, *extra)
        denoised: Tensor = as_column(c.c_skip, x) * x + as_column(c.c_out, x) * raw.to(x.dtype)
        return denoised


@dataclass(frozen=True, kw_only=True)
class Denoiser(Network):
    """A raw network with a preconditioner, which together estimate the clean image.

    The module that ``build`` returns is called as ``denoiser(x, sigma, labels) -> D(x; sigma)``:
    x ``[B, *shape]``, sigma ``[B]``, labels ``[B]`` int64 or None. In training with augmentation
    labels, a fourth argument ``augment_labels`` ``[B, A]`` describes the augmentation of an image.
    """

    output = DenoiserFile
    implements = ("build_network", "build", "bind")

    takes_augment_labels: ClassVar[bool] = False
    """Whether the raw network has an input that describes the augmentation of each item.

    The input is the fourth argument, ``augment_labels``: ``[B, spec.augment_labels]`` or None.
    """

    preconditioner: Preconditioner = setting(
        doc="preconditioner, which scales the network's input and output", use={"use": "edm"}
    )

    @property
    def label_dropout(self) -> float:
        """Probability of dropping the class of an item in training, for classifier-free guidance.

        If it is above 0, a class-conditional network can also be called with labels None.
        """
        return 0.0

    def build_network(self, spec: DataSpec) -> nn.Module:
        """Return the raw network F, called as ``F(x [B, *shape], c_noise [B], labels)``.

        A network with an encoder may have a method ``encode`` with the same arguments, which
        returns features ``[B, C, h, w]`` of the lowest resolution, as input of a discriminator.
        """
        raise unbound(self, "build")

    def build(self, spec: DataSpec) -> Preconditioned:
        return Preconditioned(self.build_network(spec), self.preconditioner)


class Discriminator(Network):
    """A network that discriminates real from generated items at every noise level.

    The module is called as ``discriminator(x [B, *shape], sigma [B], labels) -> logit [B]``, the
    logarithm of d / (1 - d), where d is the probability that x comes from real data.
    """

    output = DiscriminatorFile


class Classifier(Network):
    """A classifier of clean images, whose features are used to compare images.

    The module is called as ``classifier(x [B, *shape]) -> logits [B, classes]`` and has
    ``features(x) -> [B, F]``. It may have ``head(features) -> logits``.
    """

    output = ClassifierFile


@dataclass(frozen=True)
class Imported:
    """A network that another project trained.

    Attributes:
        network: settings from which the network is built.
        spec: shape and attributes of the training data.
        weights: weights, by name in genkit's network.
        images: number of training images; 0 if the file does not contain it.
        notes: facts that a user should know, one sentence each.
        ema_length: relative length of the power-function average of the weights; None for other
            averages, or if the file name does not contain the length.
    """

    network: Network
    spec: DataSpec
    weights: Mapping[str, Tensor]
    images: int
    notes: tuple[str, ...] = ()
    ema_length: float | None = None


class Importer(Component):
    """Reads a network from a file of another project, without executing code in it."""

    snapshots: ClassVar[str] = "*"
    """Glob pattern of the snapshot files in a folder, to reconstruct averages of any length."""

    @abstractmethod
    def read(self, path: Path) -> Imported:
        """Return the network in a file.

        Raises:
            DataError: the file is damaged, of a different kind, or inconsistent.
        """
