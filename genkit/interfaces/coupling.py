"""Bases of couplers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import torch
from torch import Tensor

from genkit.interfaces.base import Component, Inputs
from genkit.interfaces.binding import unbound
from genkit.types import Batch, Pairs


class BoundCoupler(Protocol):
    """Result of :meth:`Coupler.bind`."""

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair a pool of images with unit-variance noise, see :meth:`Coupler.pair`."""
        ...


class BoundDatasetCoupler(Protocol):
    """Result of :meth:`DatasetCoupler.bind`."""

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise sample, see :meth:`DatasetCoupler.choose`."""
        ...


class AnyCoupler(Component):
    """Base of both kinds of couplers. By default, a coupler declares no property of its pairs."""

    @abstractmethod
    def bind(self, inputs: Inputs) -> BoundCoupler | BoundDatasetCoupler:
        """Return the object that computes pairs, with the artifacts of earlier stages loaded.

        Called once per stage. A coupler that refers to no stage returns itself.
        """

    @property
    def preserves_noise_marginal(self) -> bool:
        """Whether the assigned noise of many pools is distributed as N(0, I)."""
        return False

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        """Attributes, such as ``labels``, conditional on which the assigned noise is N(0, I).

        If a network is conditioned on an attribute, the attribute must be among them.
        """
        return frozenset()

    @property
    def independent(self) -> bool:
        """Whether assigned noise and data are independent.

        If they are, adding fresh noise to ``data + sigma * noise`` gives the distribution at a
        higher noise level, as churn assumes, and sampling may start from N(0, sigma_max^2 I).
        """
        return False

    @property
    def preserves_score(self) -> bool:
        """Whether ``(D(x; sigma) - x) / sigma^2`` is the score, which independence implies.

        In general, the expression is only ``-v / sigma`` for the velocity ``v = dx / dsigma`` of
        the probability-flow ODE. It is the score almost everywhere if the data is a locally
        constant function of the noise.
        """
        return self.independent

    @property
    def requires(self) -> frozenset[str]:
        """Attributes of a batch, such as ``labels``, that the coupler requires."""
        return frozenset()


class Coupler(AnyCoupler):
    """Assigns noise samples to the images of a pool. Implements ``pair`` or ``bind``."""

    implements = ("pair", "bind")

    @property
    def bijective(self) -> bool:
        """Whether every image and every noise sample of a pool is used exactly once."""
        return False

    @property
    def preserves_noise_marginal(self) -> bool:
        """Whether the assigned noise of many pools is N(0, I), which a bijection implies."""
        return self.bijective

    @property
    def noises_per_image(self) -> int:
        """Number of noise samples drawn per image. All of a pool can be assigned to any image."""
        return 1

    def bind(self, inputs: Inputs) -> BoundCoupler:
        return self

    def pair(self, batch: Batch, noise: Tensor, generator: torch.Generator) -> Pairs:
        """Pair a pool of images with unit-variance noise.

        A pure function: equal arguments and generator states give equal pairs, and the arguments
        are not modified. It is called from several threads concurrently, and should compute on the
        device of its arguments.

        Args:
            batch: ``[N, *shape]`` images, after augmentation, with their attributes.
            noise: ``[M, *shape]`` unit-variance noise, M = N * ``noises_per_image``; the samples
                drawn for image k start at index k * ``noises_per_image``.
            generator: generator on the CPU, for every random choice.

        Returns:
            N pairs, as int64 index vectors on the CPU.

        Raises:
            DataError: a value or cost is not finite (the message contains its index), or M is not
                N * ``noises_per_image``.
            UsageError: the coupler can pair only after :meth:`bind`.
        """
        raise unbound(self, "pair")


class DatasetCoupler(AnyCoupler):
    """Assigns images of the whole data set to noise samples. Implements ``choose`` or ``bind``."""

    implements = ("choose", "bind")

    @property
    def preserves_noise_marginal(self) -> bool:
        """True: every noise sample is used exactly once."""
        return True

    def bind(self, inputs: Inputs) -> BoundDatasetCoupler:
        return self

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise sample. A pure function, like :meth:`Coupler.pair`.

        Args:
            data: all ``N`` items of the data set, not augmented.
            noise: ``[M, *shape]`` unit-variance noise, for any M.
            generator: generator on the CPU, for every random choice.

        Returns:
            ``[M]`` int64 indices of items on the CPU.

        Raises:
            DataError: a value or cost is not finite; the message contains its index.
            UsageError: the coupler can choose only after :meth:`bind`.
        """
        raise unbound(self, "choose")
