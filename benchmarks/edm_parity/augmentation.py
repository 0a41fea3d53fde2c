"""Compare augmented images and their labels with those of EDM's AugmentPipe.

The random numbers of the reference are recorded, and genkit applies the same changes to the same
images, which are uniform in [-1, 1]. The reference pads a batch by as many pixels as its images
require; genkit always pads by the maximum of size - 1 pixels. So each batch is compared twice: as
drawn, and with the last image shrunk so much that the reference pads by the maximum on every side.
The comparison is in float64 and in float32. In float64, the filter of the reference still has the
precision of float32.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from genkit_data.augment import Changes, EdmAugmentation

EDM = {"xflip": 1e8, "yflip": 1, "scale": 1, "rotate_frac": 1, "aniso": 1, "translate_frac": 1}
"""Arguments that EDM's ``train.py`` passes, in addition to the probability."""

CASES: dict[str, dict[str, float]] = {
    "EDM's settings": {"p": 0.12},
    "every change": {"p": 1},
    "strong shifts": {"p": 1, "translate_frac_std": 1},
    "strong scaling": {"p": 1, "scale_std": 1},
    "all strong": {"p": 1, "translate_frac_std": 0.5, "scale_std": 0.5, "aniso_std": 0.5},
}
NAMES = {
    "p": "probability",
    "scale_std": "scale_std",
    "aniso_std": "anisotropy_std",
    "translate_frac_std": "translation_std",
}
"""Dict from the arguments of the reference in ``CASES`` to the settings of genkit."""

SIZES = ((8, 8), (16, 16), (32, 32), (12, 20), (32, 16))  # height and width
COUNT = 16  # images in a batch; in larger batches, the padding is closer to the maximum
BATCHES = 60
SHRUNK = -4.0  # log2 of the scale of the last image, so that the reference pads by the maximum


class Recorder:
    """Record the random draws and the padding of the reference.

    Attributes:
        draws: results of torch.rand, randn and randint, in the order of the calls.
        padding: padding of each side divided by its upper limit, size - 1: the minimum over the four
            sides.
    """

    def __init__(self, last_scale: float | None) -> None:
        # Normal variate of the scale of the last image, whose other draws are 0; None to draw all.
        self.last_scale = last_scale
        self.draws: list[Tensor] = []
        self.padding = 1.0

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record within a ``with`` block."""
        drawing: dict[str, Any] = {
            name: self._recorded(getattr(torch, name), value)
            for name, value in (("rand", 0.0), ("randn", 0.0), ("randint", 0))
        }
        with mock.patch.multiple(torch, **drawing), mock.patch.object(F, "pad", self._pad(F.pad)):
            yield

    def _recorded(self, function: Callable[..., Tensor], last: float) -> Callable[..., Tensor]:
        def call(*args: Any, **kwargs: Any) -> Tensor:
            draw = function(*args, **kwargs)
            if self.last_scale is not None:
                # The fifth draw is the scale.
                draw.view(-1, COUNT)[:, -1] = self.last_scale if len(self.draws) == 4 else last
            self.draws.append(draw)
            return draw

        return call

    def _pad(self, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(input: Tensor, pad: list[Tensor], mode: str) -> Tensor:  # noqa: A002
            height, width = input.shape[2:]
            sides = [int(side) for side in pad]
            self.padding = min(
                side / (size - 1)
                for side, size in zip(sides, (width, width, height, height), strict=True)
            )
            return function(input, sides, mode=mode)

        return call

    def changes(self, p: float) -> Changes:
        """Return the changes that the reference derives from its draws."""
        (x, x_done, y, y_done, scale, scale_done, angle, angle_done) = (
            draw.flatten() for draw in self.draws[:8]
        )
        stretch, axis, stretch_done, axis_done = self.draws[8:12]
        shift, shift_done = self.draws[12:]
        values_by_name = {
            "x_flip": x * (x_done < EDM["xflip"] * p),
            "y_flip": y * (y_done < EDM["yflip"] * p),
            "scale": scale * (scale_done < p),
            "angle": (angle * 2 - 1) * torch.pi * (angle_done < p),
            "stretch": stretch * (stretch_done < p),
            "axis": (axis * 2 - 1) * torch.pi * (axis_done < 0.5),
            "right": shift[0] * (shift_done[0] < p),
            "down": shift[1] * (shift_done[0] < p),
        }
        return Changes(**{name: values.double() for name, values in values_by_name.items()})


def compared(
    pipe: type, case: dict[str, float], size: tuple[int, int], shrunk: bool
) -> tuple[float, float, float]:
    """Return the minimum of ``padding``, and the maximum differences of labels and of pixels."""
    settings = {NAMES[name]: value for name, value in case.items()}
    augmentation = EdmAugmentation(**settings)
    padding, labels, pixels = 1.0, 0.0, 0.0
    for seed in range(BATCHES):
        torch.manual_seed(seed)  # the reference draws with the global generator
        images = torch.rand(COUNT, 3, *size) * 2 - 1
        recorder = Recorder(SHRUNK / case.get("scale_std", 0.2) if shrunk else None)
        with recorder.recording():
            wanted, wanted_labels = pipe(**EDM, **case)(images)
        changes = recorder.changes(case["p"])
        padding = min(padding, recorder.padding)
        labels = max(labels, float((changes.labels() - wanted_labels).abs().max()))
        pixels = max(pixels, float((augmentation.apply(images, changes) - wanted).abs().max()))
    return padding, labels, pixels


def lines() -> Iterator[str]:
    """Yield the lines of a table.

    Its columns are: the minimum of the reference's padding over the batches as drawn, divided by its
    upper limit; the maximum difference of the nine labels; the maximum difference of pixels for
    batches as drawn; and the same for batches that are padded by the maximum.
    """
    pipe = importlib.import_module("training.augment").AugmentPipe
    before = torch.get_default_dtype()
    for dtype in (torch.float64, torch.float32):
        # The reference has no setting for the precision.
        torch.set_default_dtype(dtype)
        yield f"{dtype!s:16} {'size':>7} {'padding':>8} {'labels':>8} {'as drawn':>9} {'padded':>8}"
        for name, case in CASES.items():
            for size in SIZES:
                padding, labels, drawn = compared(pipe, case, size, shrunk=False)
                maximum, shrunk_labels, padded = compared(pipe, case, size, shrunk=True)
                if maximum < 1:
                    raise RuntimeError(
                        f"{name}: the reference must pad by 100 % of the maximum, got {maximum:.0%}"
                    )
                yield (
                    f"{name:16} {size[0]:>4}x{size[1]:<2} {padding:8.0%} "
                    f"{max(labels, shrunk_labels):8.0e} {drawn:9.0e} {padded:8.0e}"
                )
    torch.set_default_dtype(before)
