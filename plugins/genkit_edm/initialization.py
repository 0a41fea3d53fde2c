"""How the weights of the networks start."""

from __future__ import annotations

from typing import TypeVar

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
