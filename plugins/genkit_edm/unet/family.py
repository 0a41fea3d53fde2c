"""What sets the U-Nets of Song et al. apart from those of Dhariwal and Nichol."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Return the layer, its weights uniform as Glorot and Bengio (2010) scale them, its bias 0.

    Args:
        layer: is changed in place, drawing from torch's global generator.
        gain: scale of the weights; EDM takes 1e-5 where a branch should start as nearly nothing.
    """
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero(layer: Layer) -> Layer:
    """Return the layer, its weights and its bias 0: a branch that starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def as_built(layer: Layer) -> Layer:
    """Return the layer as torch starts it: weights and bias uniform below 1 / sqrt(fan_in)."""
    return layer


class Initialization(NamedTuple):
    """How the layers of a family of networks start.

    Attributes:
        usual: a layer without a special part.
        last: the last layer of a branch.
        attention: the layer that makes queries, keys and values.
    """

    usual: Callable[[Any], Any]
    last: Callable[[Any], Any]
    attention: Callable[[Any], Any]


XAVIER = Initialization(xavier, partial(xavier, gain=1e-5), partial(xavier, gain=math.sqrt(0.2)))
"""Of DDPM++ and NCSN++."""

KAIMING = Initialization(as_built, zero, as_built)
"""Of ADM."""


@dataclass(frozen=True)
class Family:
    """The choices that no setting changes.

    Attributes:
        initialization: how weights start.
        eps: is added to the variance in group normalisation.
        skip_scale: factor of the sum of two branches.
        scales_and_shifts: the condition scales and shifts a block's normalised features; else it
            is added to them before they are normalised.
        projects_resampled: a block that halves or doubles the size has a convolution in its
            shortcut even where the width stays.
        channels_per_head: of attention; None for a single head.
        attends_throughout: all blocks of a level attend on the way up; else the last.
        wide_stem: the first convolution is as wide as the first level; else as the unit of width.
    """

    initialization: Initialization
    eps: float
    skip_scale: float
    scales_and_shifts: bool
    projects_resampled: bool
    channels_per_head: int | None
    attends_throughout: bool
    wide_stem: bool

    def heads(self, channels: int) -> int:
        """Return the number of heads of attention; 0 for features too narrow for one."""
        return 1 if self.channels_per_head is None else channels // self.channels_per_head


SONG = Family(
    initialization=XAVIER,
    eps=1e-6,
    skip_scale=math.sqrt(0.5),  # keeps the variance of the sum
    scales_and_shifts=False,
    projects_resampled=True,
    channels_per_head=None,
    attends_throughout=False,
    wide_stem=False,
)
"""DDPM++ and NCSN++: Song et al., arXiv 2011.13456, as EDM, arXiv 2206.00364, lays them out."""

ADM = Family(
    initialization=KAIMING,
    eps=1e-5,
    skip_scale=1.0,
    scales_and_shifts=True,
    projects_resampled=False,
    channels_per_head=64,
    attends_throughout=True,
    wide_stem=True,
)
"""ADM: Dhariwal and Nichol, arXiv 2105.05233, as EDM, arXiv 2206.00364, lays it out."""
