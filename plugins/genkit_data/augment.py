"""EDM's augmentation: random geometric changes of images.

The network is conditioned on the changes, so that they do not leak into samples.
"""

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
    """Changes of N images; each attribute is ``[N]`` float64, and 0 means no change.

    Attributes:
        x_flip: 1 for images that are mirrored left to right, 0 for others.
        y_flip: 1 for images that are mirrored top to bottom, 0 for others.
        scale: log2 of the scale, in units of ``scale_std``.
        angle: angle of the counter-clockwise rotation, in radians.
        stretch: log2 of the stretch along an axis, in units of ``anisotropy_std``; the image
            shrinks by the same factor across the axis.
        axis: angle of that axis, counter-clockwise from the x-axis, in radians.
        right: shift to the right, in units of ``translation_std`` times the width.
        down: downward shift, in units of ``translation_std`` times the height.
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
        """Return the augmentation labels ``[N, 9]`` float32, in the order of EDM's weights."""
        labels = (
            *(self.x_flip, self.y_flip),
            self.scale,
            *(self.angle.cos() - 1, self.angle.sin()),
            *(self.stretch * self.axis.cos(), self.stretch * self.axis.sin()),
            *(self.right, self.down),
        )
        return torch.stack(labels, dim=1).float()


@dataclass(frozen=True, kw_only=True)
class EdmAugmentation(Augmentation):
    """Mirror, scale, rotate, stretch and shift images, and condition the network on the changes.

    Each of the six changes has its own probability: ``probability`` times its multiplier. In
    sampling, augmentation labels of 0 request images without changes.

    Images are padded by one reflection, of width - 1 or height - 1 pixels on each side, and with 0
    beyond. EDM's reference implementation pads a batch as far as its images require. Here the
    padding is always the maximum, so that the result for an image does not depend on its batch.
    """

    source = "EDM, arXiv 2206.00364, appendix F.2"

    probability: float = setting(
        0.12, doc="probability of each change, before its multiplier", at_least=0, at_most=1
    )
    x_flip: float = setting(
        1e8,
        doc="multiplier of the probability of a coin flip (p = 1/2) that mirrors left to right; by "
        "default the coin is always flipped, so that half of the images are mirrored",
        at_least=0,
    )
    y_flip: float = setting(
        1.0,
        doc="multiplier of the probability of a coin flip (p = 1/2) that mirrors top to bottom",
        at_least=0,
    )
    scale: float = setting(1.0, doc="multiplier of the probability of scaling", at_least=0)
    rotation: float = setting(
        1.0, doc="multiplier of the probability of rotation by a random angle", at_least=0
    )
    anisotropy: float = setting(
        1.0, doc="multiplier of the probability of stretching along a random axis", at_least=0
    )
    translation: float = setting(1.0, doc="multiplier of the probability of shifting", at_least=0)
    scale_std: float = setting(
        0.2, doc="standard deviation of log2 of the scale", at_least=0, at_most=10
    )
    anisotropy_std: float = setting(
        0.2, doc="standard deviation of log2 of the stretch along the axis", at_least=0, at_most=10
    )
    translation_std: float = setting(
        0.125,
        doc="standard deviation of the shift, relative to width and height",
        at_least=0,
        at_most=10,
    )

    @property
    def augment_labels(self) -> int:
        return 9

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        if batch.data.ndim != 4:
            shape = tuple(batch.data.shape[1:])
            raise DataError(
                f'augmentation "edm" requires images, got items of shape {shape}; remove it',
                Code.WRONG_SHAPE,
            )
        changes = self.draw(len(batch), generator)
        labels = changes.labels().to(batch.data.device)
        return replace(batch, data=self.apply(batch.data, changes), augment_labels=labels)

    def draw(self, count: int, generator: torch.Generator) -> Changes:
        """Draw the changes of ``count`` images."""
        uniform = torch.rand((count, 11), generator=generator, dtype=torch.float64)
        normal = torch.randn((count, 4), generator=generator, dtype=torch.float64)
        multipliers = uniform.new_tensor(
            [self.x_flip, self.y_flip, self.scale, self.rotation, self.anisotropy, self.translation]
        )
        active = (uniform[:, :6] < multipliers * self.probability).double().unbind(1)
        coins = (uniform[:, 6:9] < 0.5).double().unbind(1)
        angle, axis = ((uniform[:, 9:] * 2 - 1) * math.pi).unbind(1)
        return Changes(
            x_flip=coins[0] * active[0],
            y_flip=coins[1] * active[1],
            scale=normal[:, 0] * active[2],
            angle=angle * active[3],
            stretch=normal[:, 1] * active[4],
            axis=axis * coins[2],  # as in EDM, half of the axes are horizontal, the others random
            right=normal[:, 2] * active[5],
            down=normal[:, 3] * active[5],
        )

    def apply(self, images: Tensor, changes: Changes) -> Tensor:
        """Return images ``[N, C, H, W]`` with the changes applied, on the device of the images."""
        for dimension, flips in ((-1, changes.x_flip), (-2, changes.y_flip)):
            mirrored = (flips == 1).to(images.device)[:, None, None, None]
            images = torch.where(mirrored, images.flip(dimension), images)
        # Warping is the slow step, so images with no change other than mirroring skip it.
        unchanged = changes.scale == 0
        for other in (changes.angle, changes.stretch, changes.right, changes.down):
            unchanged &= other == 0
        changed = (~unchanged).nonzero()[:, 0]
        if not len(changed):
            return images
        linear, shift = self._maps(changes, *images.shape[:1:-1])
        indices = changed.to(images.device)
        warped = warp(images[indices], linear[changed].to(images), shift[changed].to(images))
        return images.index_copy(0, indices, warped)

    def _maps(self, changes: Changes, width: int, height: int) -> tuple[Tensor, Tensor]:
        """Return the matrices ``[N, 2, 2]`` and shifts ``[N, 2]`` that :func:`warp` takes."""
        # These are the inverse maps: from the position in the changed image (scaled, rotated,
        # stretched, then shifted) to the position in the original.
        inverse_scale = torch.exp2(-self.scale_std * changes.scale)
        inverse_stretch = torch.exp2(-self.anisotropy_std * changes.stretch)
        squeeze = torch.diag_embed(torch.stack([inverse_stretch, 1 / inverse_stretch], dim=1))
        along = _rotation(changes.axis)
        linear = _rotation(changes.angle) @ along.mT @ squeeze @ along
        linear = linear * inverse_scale[:, None, None]
        size = torch.tensor([width, height]) * self.translation_std
        shift = torch.stack([changes.right, changes.down], dim=1) * size
        return linear, -(linear @ shift[:, :, None])[:, :, 0]


def _rotation(angle: Tensor) -> Tensor:
    """Return the inverse matrices ``[N, 2, 2]`` of counter-clockwise rotations by ``[N]`` angles.

    The y-axis points down.
    """
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([cos, -sin, sin, cos], dim=1).reshape(-1, 2, 2)
