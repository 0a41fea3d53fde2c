"""The fitted potential, and a description of the images to which it was fitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genkit.plugin import (
    Artifact,
    Batch,
    Code,
    DataError,
    generator,
    load_tensors,
    require_finite,
    save_tensors,
)

By = Literal["label"]

_TOLERANCE = 1e-3  # maximum difference of marks / norm of the image; devices round differently


@dataclass(frozen=True)
class Images:
    """The groups and duplicates of the images of a data set, and marks that identify the images.

    Attributes:
        part: ``[N]`` int64 group of each image: its class, or 0 for a single group.
        twin: ``[N]`` int64 index of the first equal image in the group, usually the image itself.
            Only first images take part in the search; one of the equal images is then drawn at
            random.
        mark: ``[N]`` float32 inner product of each image with a fixed noise sample, which
            identifies the image.
    """

    part: Tensor
    twin: Tensor
    mark: Tensor

    def __len__(self) -> int:
        return len(self.part)

    def parts(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the class of each group, and the indices of its distinct images."""
        distinct = (self.twin == torch.arange(len(self))).nonzero()[:, 0]
        for value in sorted(set(self.part.tolist())):
            yield value, distinct[self.part[distinct] == value]

    def size(self) -> Tensor:
        """Return the number of images equal to each first image, ``[N]`` int64; 0 for others."""
        return torch.bincount(self.twin, minlength=len(self))

    def any_twin(self, index: Tensor, generator: torch.Generator) -> Tensor:
        """Replace each first image by one of its equal images, drawn with uniform probability."""
        size = self.size()
        first = size.cumsum(0) - size
        draw = torch.rand(len(index), generator=generator, dtype=torch.float64)
        place = first[index] + (draw * size[index]).long()
        return self.twin.argsort(stable=True)[place]


def flatten_images(data: Tensor) -> Tensor:
    """Return the images as vectors, ``[N, D]`` float32."""
    return data[:, None].flatten(1).float()


def describe(batch: Batch, by: tuple[By, ...]) -> Images:
    """Return groups, duplicates and marks of the images of a data set.

    Raises:
        DataError: an image is not finite or too large, or labels are required but missing.
    """
    require_finite(batch.data, "image")
    points = flatten_images(batch.data)
    length = torch.linalg.vector_norm(points, dim=1)
    require_finite(length.square(), "the squared length of image")
    part = group_images(batch, by)
    first: dict[tuple[int, bytes], int] = {}
    rows = points.cpu().numpy()
    twin = [
        first.setdefault((value, hashlib.blake2b(row.tobytes()).digest()), index)
        for index, (value, row) in enumerate(zip(part.tolist(), rows, strict=True))
    ]
    return Images(part, torch.tensor(twin), mark(points).cpu())


def group_images(batch: Batch, by: tuple[By, ...]) -> Tensor:
    """Return the group of each image, ``[N]`` int64 on the CPU.

    Raises:
        DataError: labels are required but missing.
    """
    if not by:
        return torch.zeros(len(batch), dtype=torch.int64)
    if batch.labels is None:
        raise DataError(
            'by = ["label"] requires labels, but the data has none; '
            "write by = [], or choose data with labels",
            Code.MISSING_ATTRIBUTE,
        )
    return batch.labels.cpu()


def mark(points: Tensor) -> Tensor:
    """Return the inner product of each image with a fixed noise sample, ``[N]`` float32."""
    probe = torch.randn(points.shape[1], generator=generator(0, "mark"))
    return torch.mv(points, probe.to(points.device))


@dataclass(frozen=True)
class Potential(Artifact):
    """A fitted potential.

    Attributes:
        images: description of the images to which it was fitted.
        values: ``[N]`` float32 potential h of each image; equal images have the same value.
        shape: shape of an image.
        by: attributes that define the groups; empty for a single group.
        facts: cost, hash of the data, and measurements of the fit.
    """

    name = "potential"

    images: Images
    values: Tensor
    shape: tuple[int, ...]
    by: tuple[By, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def require(self, batch: Batch) -> None:
        """Check that the batch is the data set of the fit, else raise DataError."""
        remedy = "write the same data in the stage of the potential and in the stage train"
        if len(batch) != len(self.images) or tuple(batch.data.shape[1:]) != self.shape:
            raise DataError(
                f"the data must be the {len(self.images)} images of shape {self.shape} to which "
                f"the potential was fitted, got {len(batch)} of shape "
                f"{tuple(batch.data.shape[1:])}; {remedy}",
                Code.WRONG_SHAPE,
            )
        points = flatten_images(batch.data)
        expected = self.images.mark.to(points.device)
        tolerance = _TOLERANCE * (1 + torch.linalg.vector_norm(points, dim=1))
        differs = ~((mark(points) - expected).abs() <= tolerance)  # true for NaN as well
        relabeled = group_images(batch, self.by) != self.images.part
        if bool(differs.any()) or bool(relabeled.any()):
            require_finite(batch.data, "image")
            changed = bool(differs.any())
            what, index = ("image", differs) if changed else ("the label of image", relabeled)
            raise DataError(
                f"{what} {int(index.nonzero()[0])} must be the same as in the potential's fit, "
                f"got a different one; {remedy}",
                Code.CONFLICT,
            )

    def save(self, path: Path) -> None:
        metadata = {"shape": self.shape, "by": self.by, "images": len(self.images)}
        metadata |= {"facts": dict(self.facts)}
        tensors = {"potential": self.values, **vars(self.images)}
        save_tensors(path, tensors, {k: json.dumps(v) for k, v in metadata.items()})

    @classmethod
    def load(cls, path: Path) -> Potential:
        tensors, metadata = load_tensors(path)
        try:
            images = Images(tensors["part"], tensors["twin"], tensors["mark"])
            shape, by = json.loads(metadata["shape"]), json.loads(metadata["by"])
            facts = json.loads(metadata["facts"])
            potential = cls(images, tensors["potential"], tuple(shape), tuple(by), facts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} must be a potential of the stage fit-potential, got {error!r}",
                Code.WRONG_KIND,
            ) from error
        require_finite(potential.values, f"{path}: the potential of image")
        return potential


def hash_images(batch: Batch) -> str:
    """Return the hexadecimal SHA-256 of the images as float32, in the order of the data set."""
    return hashlib.sha256(flatten_images(batch.data).cpu().numpy().tobytes()).hexdigest()
