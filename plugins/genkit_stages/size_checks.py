"""Checks that networks, pools and samples fit in the memory of the machine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

from torch import nn

from genkit.errors import Code, Key, Problem
from genkit.fields import leaves_of
from genkit.interfaces import Average, Network
from genkit.parts.memory import memory_problems, total_memory
from genkit.parts.meta import TooLargeError
from genkit.tensors import stored_bytes
from genkit.train.sizes import count_parameters, tensor_bytes, training_size
from genkit.types import DataSpec

MOST_BATCH = 10**6
"""Maximum batch size; chosen, not tuned. A value above it is most likely a mistake."""

_COPIES = 64
"""Maximum number of copies of the weights that gradients and averages are assumed to require. If as
many fit, they are not counted: that takes as long as building the network."""


def training_problems(network: Network, model: nn.Module, average: Average) -> Iterator[Problem]:
    """Yield a problem if the memory of the machine is too small to train a network.

    Args:
        network: settings of the network, which are the setting ``network`` of the stage.
        model: the network on the device "meta".
        average: average of the weights.
    """
    required = tensor_bytes(model.state_dict())
    if _COPIES * required <= (total_memory() or math.inf):
        return
    with suppress(Exception):  # errors of third-party code are reported by the run
        size = training_size(model, average)
        required += size.averages + size.gradients
    what = f"{count_parameters(model):,} parameters with gradients and average"
    yield from memory_problems(*_largest(network), required, what)


def build_problem(network: Network, error: TooLargeError) -> Problem:
    """Return the problem of a network that is too large to be built even without memory."""
    key, value = _largest(network)
    reason = f"must be small enough for the network to be built, got {value}"
    return Problem(key, reason, f"write a smaller value, since {error}", Code.OUT_OF_MEMORY)


def pool_problems(
    spec: DataSpec, images: int, pool: tuple[str, int], pools_ahead: int
) -> Iterator[Problem]:
    """Yield a problem if the pools that are coupled ahead of training require too much memory.

    Args:
        spec: specification of the data.
        images: number of training images.
        pool: key of the setting that determines the size of a pool, and the size.
        pools_ahead: number of pools that are coupled ahead of training.
    """
    key, size = pool
    waiting = min(size * (1 + pools_ahead), images)
    pairs = 2 * 4 * waiting * math.prod(spec.shape)  # images and noise in float32
    largest = max((size, key), (pools_ahead, "pools_ahead"))
    what = f"{waiting:,} images and their noise"
    yield from memory_problems((largest[1],), largest[0], pairs, what)


def sample_problems(spec: DataSpec, count: int, batch_size: int) -> Iterator[Problem]:
    """Yield a problem if samples require too much memory; keys are those of the arguments."""
    stored = count * stored_bytes(spec.shape)
    yield from memory_problems(("count",), count, stored, f"{count:,} samples")
    batch = min(batch_size, count)
    states = 2 * 4 * batch * math.prod(spec.shape)  # state and denoised state in float32
    yield from memory_problems(("batch_size",), batch_size, states, f"{batch:,} states")


def _largest(network: Network) -> tuple[Key, int]:
    """Return key and value of the largest integer setting of a network.

    The key begins with ``network``, and has no further parts if there is no such setting.
    """
    leaves = [(v, k) for k, _, v in leaves_of(network, "network") if type(v) is int]
    value, key = max(leaves, key=lambda leaf: leaf[0], default=(1, ("network",)))
    return key, value
