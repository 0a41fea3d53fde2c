"""Bases of data sets and of their augmentation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import torch

from genkit.interfaces.base import Component, Inputs, Stages
from genkit.types import Batch, DataSpec, RemoteFile


class Dataset(Component):
    """A data set of images or vectors, with their attributes."""

    archives: ClassVar[Mapping[str, RemoteFile]] = MappingProxyType({})
    """Files that ``genkit data get`` downloads, by file name in ``root``."""

    @abstractmethod
    def spec(self) -> DataSpec:
        """Return shape and attributes of the items without reading all of them.

        Raises:
            DataError: a file is missing, unreadable, or has a different shape from the others.
        """

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser drew the generated items, or None."""
        return None

    def item_count(self) -> int | None:
        """Return the number of items without reading them; None if unknown. Raises as ``spec``."""
        return None

    def held_out_part(self) -> Dataset | None:
        """Return the data set of the items held out of training; by default None, for no items."""
        return None

    @abstractmethod
    def load(self, inputs: Inputs) -> Batch:
        """Return all items on the CPU. Images are float32 in [-1, 1], or uint8.

        Args:
            inputs: artifacts of the stages to which the data set refers.

        Raises:
            DataError: as for :meth:`spec`, or a value is not finite.
        """


class Augmentation(Component):
    """A random transformation of the images, applied before coupling."""

    @property
    def augment_labels(self) -> int:
        """Length A of the vector that describes the augmentation of an image; 0 for no vector.

        A denoiser that is not conditioned on this vector generates augmented images.
        """
        return 0

    @abstractmethod
    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the items with augmented ``data``, and with ``augment_labels`` if A is not 0.

        Args:
            batch: N items on any device, on which the result is computed as well.
            generator: generator on the CPU, for every random choice of the pool; the draws of an
                item depend on its position in the pool.
        """
