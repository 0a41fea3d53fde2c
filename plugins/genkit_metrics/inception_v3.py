"""Inception-v3 as published for TensorFlow in 2015: the network of the FID.

Layers have the names in torch-fidelity's file of the weights. torchvision's Inception-v3 gives
different features. This network differs from it as follows: images are resized as in TensorFlow 1,
average pooling inside blocks excludes the padding, the last block uses max pooling, and there are
1,008 logits.

Source: Szegedy et al., arXiv 1512.00567, figures 5 to 7; the published graph
``inception-2015-12-05``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = 299
"""Height and width of the network's input."""

FEATURES = 2048
LOGITS = 1008


@dataclass(frozen=True)
class Conv:
    """Settings of a convolution without bias, followed by batch normalization and ReLU.

    Attributes:
        channels: number of output channels.
        size: height and width of the kernel.
        stride: stride of the convolution.
        padded: whether the input is padded with 0 such that stride 1 preserves height and width.
    """

    channels: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padded: bool = True


Layer = Conv | tuple[Conv, Conv] | nn.Module
"""A convolution, two parallel convolutions whose outputs are concatenated, or a pooling."""

Branches = Mapping[str, Sequence[Layer]]
"""Dict from the name of each branch of a block to its layers."""

AVERAGE = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
MAXIMUM = nn.MaxPool2d(3, stride=1, padding=1)
HALVE = nn.MaxPool2d(3, stride=2)
THREE, FIVE, WIDE, TALL = (3, 3), (5, 5), (1, 7), (7, 1)


def _blocks_of_35(pool: int) -> Branches:
    """Return the branches of a 35x35 block; ``pool`` is the number of channels after pooling."""
    return {
        "branch1x1": [Conv(64)],
        "branch5x5": [Conv(48), Conv(64, FIVE)],
        "branch3x3dbl": [Conv(64), Conv(96, THREE), Conv(96, THREE)],
        "branch_pool": [AVERAGE, Conv(pool)],
    }


def _blocks_of_17(inner: int) -> Branches:
    """Return the branches of a 17x17 block; ``inner`` is the number of channels inside branches."""
    wide, tall = Conv(inner, WIDE), Conv(inner, TALL)
    return {
        "branch1x1": [Conv(192)],
        "branch7x7": [Conv(inner), wide, Conv(192, TALL)],
        "branch7x7dbl": [Conv(inner), tall, wide, tall, Conv(192, WIDE)],
        "branch_pool": [AVERAGE, Conv(192)],
    }


def _blocks_of_8(pool: nn.Module) -> Branches:
    """Return the branches of an 8x8 block with the pooling ``pool``."""
    split = (Conv(384, (1, 3)), Conv(384, (3, 1)))
    return {
        "branch1x1": [Conv(320)],
        "branch3x3": [Conv(384), split],
        "branch3x3dbl": [Conv(448), Conv(384, THREE), split],
        "branch_pool": [pool, Conv(192)],
    }


_TO_17: Branches = {
    "branch3x3": [Conv(384, THREE, stride=2, padded=False)],
    "branch3x3dbl": [Conv(64), Conv(96, THREE), Conv(96, THREE, stride=2, padded=False)],
    "branch_pool": [HALVE],
}

_TO_8: Branches = {
    "branch3x3": [Conv(192), Conv(320, THREE, stride=2, padded=False)],
    "branch7x7x3": [
        Conv(192),
        Conv(192, WIDE),
        Conv(192, TALL),
        Conv(192, THREE, stride=2, padded=False),
    ],
    "branch_pool": [HALVE],
}

PARTS: Mapping[str, Conv | Branches | nn.Module] = {
    "Conv2d_1a_3x3": Conv(32, THREE, stride=2, padded=False),
    "Conv2d_2a_3x3": Conv(32, THREE, padded=False),
    "Conv2d_2b_3x3": Conv(64, THREE),
    "MaxPool_1": HALVE,
    "Conv2d_3b_1x1": Conv(80),
    "Conv2d_4a_3x3": Conv(192, THREE, padded=False),
    "MaxPool_2": HALVE,
    "Mixed_5b": _blocks_of_35(pool=32),
    "Mixed_5c": _blocks_of_35(pool=64),
    "Mixed_5d": _blocks_of_35(pool=64),
    "Mixed_6a": _TO_17,
    "Mixed_6b": _blocks_of_17(inner=128),
    "Mixed_6c": _blocks_of_17(inner=160),
    "Mixed_6d": _blocks_of_17(inner=160),
    "Mixed_6e": _blocks_of_17(inner=192),
    "Mixed_7a": _TO_8,
    "Mixed_7b": _blocks_of_8(AVERAGE),
    "Mixed_7c": _blocks_of_8(MAXIMUM),
}
"""Dict from name to settings of the parts between the image and the global average, in order."""


class Unit(nn.Module):
    """A convolution, batch normalization and ReLU.

    Args:
        inputs: number of input channels.
        conv: settings of the convolution.
    """

    def __init__(self, inputs: int, conv: Conv) -> None:
        super().__init__()
        self.channels = conv.channels
        height, width = (n // 2 if conv.padded else 0 for n in conv.size)
        self.conv = nn.Conv2d(
            inputs, conv.channels, conv.size, conv.stride, (height, width), bias=False
        )
        self.bn = nn.BatchNorm2d(conv.channels, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, channels, H', W']`` for ``x`` ``[B, inputs, H, W]``."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Parallel branches whose outputs are concatenated.

    Args:
        inputs: number of input channels.
        branches: layers of each branch.
    """

    def __init__(self, inputs: int, branches: Branches) -> None:
        super().__init__()
        self.channels = 0
        self._paths: list[list[list[str]]] = []
        for branch, layers in branches.items():
            channels, path = inputs, []
            for parts in _name_parts(branch, layers):
                modules = {name: _module(channels, part) for name, part in parts.items()}
                for name, module in modules.items():
                    self.add_module(name, module)
                channels = sum(_channels(module, channels) for module in modules.values())
                path.append([*modules])
            self._paths.append(path)
            self.channels += channels

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, channels, H', W']`` for ``x`` ``[B, inputs, H, W]``."""
        return torch.cat([self._output(path, x) for path in self._paths], dim=1)

    def _output(self, path: list[list[str]], x: Tensor) -> Tensor:
        """Return the output of a branch."""
        for names in path:
            outputs = [self.get_submodule(name)(x) for name in names]
            # torch.cat of a single tensor would copy it.
            x = torch.cat(outputs, dim=1) if len(outputs) > 1 else outputs[0]
        return x


class InceptionV3(nn.Module):
    """Network that returns features ``[B, 2048]`` of pixels ``[B, 3, H, W]`` from 0 to 255.

    The layer ``fc`` maps features to logits ``[B, 1008]``.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        for name, part in PARTS.items():
            module = _module(channels, part)
            self.add_module(name, module)
            channels = _channels(module, channels)
        self.fc = nn.Linear(FEATURES, LOGITS)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the output of the last block, averaged over the positions."""
        x = (resize(pixels, SIZE) - 128) / 128
        for name in PARTS:
            x = self.get_submodule(name)(x)
        return x.mean(dim=(2, 3))


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images to ``[B, C, size, size]`` by linear interpolation as in TensorFlow 1.

    Output pixel i is the input at position ``i * length / size``, without the half-pixel shift of
    current libraries. Positions beyond the last input pixel have the value of that pixel.

    Args:
        images: images of a floating-point type, ``[B, C, H, W]``.
        size: height and width of the result.
    """
    for dim in (3, 2):  # width first as in TensorFlow, since the order affects rounding
        length = images.shape[dim]
        scale = torch.tensor(length / size, dtype=torch.float32)
        at = (torch.arange(size, dtype=torch.float32) * scale).to(images.device)
        low = at.long()
        high = (low + 1).clamp(max=length - 1)
        weight = (at - low).to(images.dtype)
        if dim == 2:
            weight = weight[:, None]
        below, above = images.index_select(dim, low), images.index_select(dim, high)
        images = below + (above - below) * weight
    return images


def _name_parts(branch: str, layers: Sequence[Layer]) -> Iterator[dict[str, Conv | nn.Module]]:
    """Yield a dict for each layer of a branch, from names in the file of the weights to parts.

    If the branch is a single convolution, it has the name of the branch. Otherwise, the name of the
    second layer is ``branch_2``; two parallel convolutions are ``branch_2a`` and ``branch_2b``.
    """
    single = sum(not isinstance(layer, nn.Module) for layer in layers) == 1
    number = 0
    for layer in layers:
        if isinstance(layer, nn.Module):
            yield {"pool": layer}
            continue
        number += 1
        name = branch if single else f"{branch}_{number}"
        if isinstance(layer, Conv):
            yield {name: layer}
        else:
            yield {f"{name}a": layer[0], f"{name}b": layer[1]}


def _module(inputs: int, part: Conv | Branches | nn.Module) -> nn.Module:
    """Build the module of a part for a number of input channels."""
    match part:
        case Conv():
            return Unit(inputs, part)
        case nn.Module():
            return part
        case _:
            return Block(inputs, part)


def _channels(module: nn.Module, inputs: int) -> int:
    """Return the number of output channels of a module; pooling has as many as its input."""
    return module.channels if isinstance(module, (Unit, Block)) else inputs
