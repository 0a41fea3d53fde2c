"""What was fitted, and the images it belongs to."""

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

_SLACK = 1e-3  # of an image's length, for marks that another device computes


@dataclass(frozen=True)
class Images:
    """The images of a data set, and which of them share out the noise among themselves.

    Attributes:
        part: ``[N]`` int64, the class of each image, or 0 for all where there is one part.
        twin: ``[N]`` int64, the first image of its part that is the same, mostly itself. Of equal
            images, one takes part in the search for all, and a draw decides between them.
        mark: ``[N]`` float32, the inner product of each image with one fixed noise, by which the
            data set is known again.
    """

    part: Tensor
    twin: Tensor
    mark: Tensor

    def __len__(self) -> int:
        return len(self.part)

    def parts(self) -> Iterator[tuple[int, Tensor]]:
        """Yield the class of each part with its images, each of equal ones once."""
        distinct = (self.twin == torch.arange(len(self))).nonzero()[:, 0]
        for value in sorted(set(self.part.tolist())):
            yield value, distinct[self.part[distinct] == value]

    def size(self) -> Tensor:
        """Return how many images equal each first one, ``[N]`` int64; 0 for the others."""
        return torch.bincount(self.twin, minlength=len(self))

    def any_twin(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Return for each first image one of its equals, all alike probable."""
        size = self.size()
        first = size.cumsum(0) - size
        draw = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
        place = first[chosen] + (draw * size[chosen]).long()
        return self.twin.argsort(stable=True)[place]


def flat(data: Tensor) -> Tensor:
    """Return items as ``[N, D]`` float32."""
    return data[:, None].flatten(1).float()


def know(batch: Batch, by: tuple[By, ...]) -> Images:
    """Return what tells the images of a data set apart.

    Raises:
        DataError: an image is not finite or too large, or there are no labels to part by.
    """
    require_finite(batch.data, "image")
    points = flat(batch.data)
    length = torch.linalg.vector_norm(points, dim=1)
    require_finite(length.square(), "the squared length of image")
    part = parts_of(batch, by)
    seen: dict[tuple[int, bytes], int] = {}
    rows = points.cpu().numpy()
    twin = [
        seen.setdefault((value, hashlib.blake2b(row.tobytes()).digest()), index)
        for index, (value, row) in enumerate(zip(part.tolist(), rows, strict=True))
    ]
    return Images(part, torch.tensor(twin), mark(points).cpu())


def parts_of(batch: Batch, by: tuple[By, ...]) -> Tensor:
    """Return the part of each image, ``[N]`` int64 on the CPU.

    Raises:
        DataError: there are no labels to part by.
    """
    if not by:
        return torch.zeros(len(batch), dtype=torch.int64)
    if batch.labels is None:
        raise DataError(
            "the potential is for each label, and this data has no labels; "
            "write by = [], or choose data that has them",
            Code.MISSING_ATTRIBUTE,
        )
    return batch.labels.cpu()


def mark(points: Tensor) -> Tensor:
    """Return the inner product of each image with one fixed noise, ``[N]`` float32."""
    probe = torch.randn(points.shape[1], generator=generator(0, "mark"))
    return torch.mv(points, probe.to(points.device))


@dataclass(frozen=True)
class Potential(Artifact):
    """A fitted potential.

    Attributes:
        images: it belongs to.
        values: ``[N]`` float32, h of each image; equal images have one value.
        shape: of an item.
        by: what the images of one part have in common; empty for one part.
        facts: what is worth knowing of the fit.
    """

    name = "potential"

    images: Images
    values: Tensor
    shape: tuple[int, ...]
    by: tuple[By, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    def require(self, batch: Batch) -> None:
        """Raise DataError unless a batch is the data set that this was fitted to."""
        mended = "fit the potential to the data that is trained on: give both stages the same data"
        if len(batch) != len(self.images) or tuple(batch.data.shape[1:]) != self.shape:
            raise DataError(
                f"the potential belongs to {len(self.images)} images of shape {self.shape}, and "
                f"not to {len(batch)} of shape {tuple(batch.data.shape[1:])}; {mended}",
                Code.WRONG_SHAPE,
            )
        points = flat(batch.data)
        expected = self.images.mark.to(points.device)
        slack = _SLACK * (1 + torch.linalg.vector_norm(points, dim=1))
        off = ~((mark(points) - expected).abs() <= slack)  # NaN is off as well
        other = parts_of(batch, self.by) != self.images.part
        if bool(off.any()) or bool(other.any()):
            require_finite(batch.data, "image")
            what, index = ("image", off) if bool(off.any()) else ("the label of image", other)
            raise DataError(
                f"{what} {int(index.nonzero()[0])} is not the one that the potential was fitted "
                f"to; {mended}",
                Code.CONFLICT,
            )

    def save(self, path: Path) -> None:
        described = {"shape": self.shape, "by": self.by, "images": len(self.images)}
        described |= {"facts": dict(self.facts)}
        named = {"potential": self.values, **vars(self.images)}
        save_tensors(path, named, {k: json.dumps(v) for k, v in described.items()})

    @classmethod
    def load(cls, path: Path) -> Potential:
        named, metadata = load_tensors(path)
        try:
            images = Images(named["part"], named["twin"], named["mark"])
            shape, by = json.loads(metadata["shape"]), json.loads(metadata["by"])
            facts = json.loads(metadata["facts"])
            found = cls(images, named["potential"], tuple(shape), tuple(by), facts)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} must be a potential of the stage fit-potential: {error!r} in its header",
                Code.WRONG_KIND,
            ) from error
        require_finite(found.values, f"{path}: the potential of image")
        return found


def digest(batch: Batch) -> str:
    """Return the SHA-256 of the images as float32, in their order, in hex."""
    return hashlib.sha256(flat(batch.data).cpu().numpy().tobytes()).hexdigest()
