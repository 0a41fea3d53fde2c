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
    """Files that ``genkit data get`` downloads, by their names in ``root``."""

    @abstractmethod
    def spec(self) -> DataSpec:
        """Return shape and attributes of the items without reading all of them.

        Raises:
            DataError: a file is missing, unreadable, or has another shape than the others.
        """

    def drawn_by(self, earlier: Stages) -> str | None:
        """Return the id of the stage whose denoiser drew generated items; None for none."""
        return None

    def item_count(self) -> int | None:
        """Return the number of items without reading them; None if unknown. Raises as ``spec``."""
        return None

    def held_out_part(self) -> Dataset | None:
        """Return the data set of items held out of training; None, the default, for none."""
        return None

    @abstractmethod
    def load(self, inputs: Inputs) -> Batch:
        """Return all items, on the CPU; images as float32 in [-1, 1], or as uint8.

        Raises:
            DataError: as for ``spec``, or values that are not finite.
        """


class Augmentation(Component):
    """A random change of the images before coupling."""

    @property
    def augment_labels(self) -> int:
        """Length A of the vector that describes the augmentation of an image; 0 for none.

        A denoiser without this input generates augmented images.
        """
        return 0

    @abstractmethod
    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the same items with changed ``data``, and ``augment_labels`` where A is not 0.

        Args:
            batch: N items on any device, on which the result is computed as well.
            generator: generator on the CPU, for every random choice of the pool; the draws of an
                item depend on its position in the pool.
        """
