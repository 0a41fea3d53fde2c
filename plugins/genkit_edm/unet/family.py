"""Differences between the U-Nets of Song et al. and of Dhariwal and Nichol."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


def init_xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Initialize a layer with Xavier uniform weights (Glorot and Bengio, 2010) and zero bias.

    Args:
        layer: layer, modified in place with draws from torch's global generator.
        gain: scale of the weights; EDM uses 1e-5 for branches that should start near 0.
    """
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero(layer: Layer) -> Layer:
    """Set the weights and the bias of a layer to 0, so that its branch is 0 at first."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def keep_default_init(layer: Layer) -> Layer:
    """Return the layer unchanged, with torch's initialization, uniform in +-1 / sqrt(fan_in)."""
    return layer


class Initialization(NamedTuple):
    """Initialization of the layers of a family of networks.

    Attributes:
        usual: initialization of all layers except those below.
        last: initialization of the last layer of a branch.
        attention: initialization of the layer of queries, keys and values.
    """

    usual: Callable[[Any], Any]
    last: Callable[[Any], Any]
    attention: Callable[[Any], Any]


XAVIER = Initialization(
    init_xavier, partial(init_xavier, gain=1e-5), partial(init_xavier, gain=math.sqrt(0.2))
)
"""Initialization of DDPM++ and NCSN++."""

KAIMING = Initialization(keep_default_init, zero, keep_default_init)
"""Initialization of ADM."""


@dataclass(frozen=True)
class Family:
    """The properties of a family of U-Nets that are not settings.

    Attributes:
        initialization: initialization of the weights.
        eps: term added to the variance in group normalization.
        skip_scale: factor of the sum of two branches.
        scales_and_shifts: whether the condition scales and shifts a block's normalized features.
            Otherwise it is added before normalization.
        projects_resampled: whether the shortcut of a block that changes the resolution has a
            convolution even if the width stays the same.
        channels_per_head: channels of an attention head; None for a single head.
        attends_throughout: whether all blocks of a decoder level have attention. Otherwise only
            the last block has.
        wide_stem: whether the first convolution has the width of the first level. Otherwise it has
            the base width.
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
        """Return the number of attention heads; 0 if there are too few channels for one."""
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
"""DDPM++ and NCSN++: Song et al., arXiv 2011.13456, as EDM, arXiv 2206.00364, configures them."""

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
"""ADM: Dhariwal and Nichol, arXiv 2105.05233, as EDM, arXiv 2206.00364, configures it."""
