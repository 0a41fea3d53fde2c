"""How the weights of the networks start."""

from __future__ import annotations

import math
from collections.abc import Callable
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
