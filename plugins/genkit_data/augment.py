"""EDM's augmentation: geometric changes that the network is told of, so that none leaks out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from genkit.errors import Code, DataError
from genkit.interfaces import Augmentation
from genkit.settings import setting
from genkit.types import Batch
from genkit_data.augment_warp import warp


@dataclass(frozen=True)
class Changes:
    """What is done to each image, ``[N]`` float64 each; 0 for nothing.

    Attributes:
        x_flip: 1 where it is mirrored left to right.
        y_flip: 1 where it is mirrored top to bottom.
        scale: normal variate of its size.
        angle: by which it is turned counter-clockwise, in radians.
        stretch: normal variate of stretching it along an axis and shrinking it across.
        axis: angle of that axis, counter-clockwise from the right, in radians.
        right: normal variate of shifting it to the right.
        down: normal variate of shifting it down.
    """

    x_flip: Tensor
    y_flip: Tensor
    scale: Tensor
    angle: Tensor
    stretch: Tensor
    axis: Tensor
    right: Tensor
    down: Tensor

    def labels(self) -> Tensor:
        """Return what a network is told, ``[N, 9]`` float32, in the order of published weights."""
        told = (
            *(self.x_flip, self.y_flip),
            self.scale,
            *(self.angle.cos() - 1, self.angle.sin()),
            *(self.stretch * self.axis.cos(), self.stretch * self.axis.sin()),
            *(self.right, self.down),
        )
        return torch.stack(told, dim=1).float()


@dataclass(frozen=True, kw_only=True)
class EdmAugmentation(Augmentation):
    """Mirrors, scales, turns, stretches and shifts images, and tells the network how.

    Each of the six changes is made with a probability of its own: ``probability`` times the
    change's multiplier. Conditioned on zeros, a network generates unchanged images.

    Beyond its borders an image continues by one reflection, of width - 1 or height - 1 pixels on
    each side, and is 0 from there on: the padding of EDM's reference implementation for a batch in
    which some image reaches that far. The result for an image does not depend on its batch.
    """

    source = "EDM, arXiv 2206.00364, appendix F.2"

    probability: float = setting(
        0.12, doc="of each change being made to an image", at_least=0, at_most=1
    )
    x_flip: float = setting(
        1e8,
        doc="multiplier of the probability of a coin that decides on mirroring left to right; "
        "at its default each image has one",
        at_least=0,
    )
    y_flip: float = setting(1.0, doc="the same, of mirroring top to bottom", at_least=0)
    scale: float = setting(1.0, doc="multiplier of the probability of scaling", at_least=0)
    rotation: float = setting(1.0, doc="the same, of turning by any angle", at_least=0)
    anisotropy: float = setting(
        1.0, doc="the same, of stretching along an axis and shrinking across it", at_least=0
    )
    translation: float = setting(1.0, doc="the same, of shifting", at_least=0)
    scale_std: float = setting(0.2, doc="standard deviation of log2 of the scale", at_least=0)
    anisotropy_std: float = setting(
        0.2, doc="standard deviation of log2 of the stretch", at_least=0
    )
    translation_std: float = setting(
        0.125, doc="standard deviation of the shift, in widths and heights", at_least=0
    )

    @property
    def augment_labels(self) -> int:
        return 9

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        if batch.data.ndim != 4:
            shape = tuple(batch.data.shape[1:])
            raise DataError(
                f'augmentation "edm" changes images, but items have shape {shape}', Code.WRONG_SHAPE
            )
        changes = self.drawn(len(batch), generator)
        told = changes.labels().to(batch.data.device)
        return replace(batch, data=self.changed(batch.data, changes), augment_labels=told)

    def drawn(self, count: int, generator: torch.Generator) -> Changes:
        """Return what is done to a number of images."""
        uniform = torch.rand((count, 11), generator=generator, dtype=torch.float64)
        normal = torch.randn((count, 4), generator=generator, dtype=torch.float64)
        multipliers = uniform.new_tensor(
            [self.x_flip, self.y_flip, self.scale, self.rotation, self.anisotropy, self.translation]
        )
        done = (uniform[:, :6] < multipliers * self.probability).double().unbind(1)
        coins = (uniform[:, 6:9] < 0.5).double().unbind(1)
        angle, axis = ((uniform[:, 9:] * 2 - 1) * math.pi).unbind(1)
        return Changes(
            x_flip=coins[0] * done[0],
            y_flip=coins[1] * done[1],
            scale=normal[:, 0] * done[2],
            angle=angle * done[3],
            stretch=normal[:, 1] * done[4],
            axis=axis * coins[2],  # half of the stretches go to the right, the rest anywhere
            right=normal[:, 2] * done[5],
            down=normal[:, 3] * done[5],
        )

    def changed(self, images: Tensor, changes: Changes) -> Tensor:
        """Return images ``[N, C, H, W]`` after their changes, computed on their device."""
        for dimension, flips in ((-1, changes.x_flip), (-2, changes.y_flip)):
            mirrored = (flips == 1).to(images.device)[:, None, None, None]
            images = torch.where(mirrored, images.flip(dimension), images)
        still = changes.scale == 0
        for other in (changes.angle, changes.stretch, changes.right, changes.down):
            still &= other == 0
        moved = (~still).nonzero()[:, 0]
        if not len(moved):
            return images
        linear, shift = self._maps(changes, *images.shape[:1:-1])
        at = moved.to(images.device)
        warped = warp(images[at], linear[moved].to(images), shift[moved].to(images))
        return images.index_copy(0, at, warped)

    def _maps(self, changes: Changes, width: int, height: int) -> tuple[Tensor, Tensor]:
        """Return from where each pixel is read, ``[N, 2, 2]`` and ``[N, 2]`` of :func:`warp`."""
        # From an image that was scaled, turned, stretched and shifted in turn, back to its origin.
        shrunk = torch.exp2(-self.scale_std * changes.scale)
        squeezed = torch.exp2(-self.anisotropy_std * changes.stretch)
        squeeze = torch.diag_embed(torch.stack([squeezed, 1 / squeezed], dim=1))
        along = _rotation(changes.axis)
        linear = _rotation(changes.angle) @ along.mT @ squeeze @ along * shrunk[:, None, None]
        size = torch.tensor([width, height]) * self.translation_std
        moved = torch.stack([changes.right, changes.down], dim=1) * size
        return linear, -(linear @ moved[:, :, None])[:, :, 0]


def _rotation(angle: Tensor) -> Tensor:
    """Return ``[N, 2, 2]``: where pixels of an image turned counter-clockwise are read."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
