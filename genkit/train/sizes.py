"""Compute the memory that the training of a network requires, without allocating it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from genkit.interfaces import Average, Optimizer
from genkit.parts.meta import without_memory

_PROBE = 64  # elements of the parameter with which an optimizer's memory is measured


@dataclass(frozen=True)
class TrainingSize:
    """Numbers and bytes of the tensors of a training, without optimizer, activations and data.

    Attributes:
        parameters: number of parameters of the network.
        trained: number of parameters that are trained.
        weights: bytes of parameters and buffers.
        averages: bytes of the average, which may consist of several networks.
        gradients: bytes of the gradients.
    """

    parameters: int
    trained: int
    weights: int
    averages: int
    gradients: int


def training_size(model: nn.Module, average: Average) -> TrainingSize:
    """Return the size of the training of a network.

    Args:
        model: network, whose tensors may be on the device "meta".
        average: average of the weights.
    """
    with without_memory():
        averaged = average.build(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return TrainingSize(
        count_parameters(model),
        sum(parameter.numel() for parameter in trained),
        tensor_bytes(model.state_dict()),
        tensor_bytes(averaged.model.state_dict()) + tensor_bytes(averaged.state()),
        sum(parameter.nbytes for parameter in trained),
    )


def bytes_per_parameter(optimizer: Optimizer) -> int:
    """Return the bytes of an optimizer's state for an element of a parameter.

    The first step of an optimizer imports torch's compiler, which takes seconds.
    """
    probe = nn.Parameter(torch.zeros(_PROBE))
    stepper = optimizer.build([probe], 1)
    probe.grad = torch.zeros(_PROBE)
    stepper.step()
    tensors = [t for state in stepper.state.values() for t in state.values()]
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor)) // _PROBE


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Return the bytes of tensors, which may be on the device "meta"."""
    return sum(tensor.nbytes for tensor in tensors.values())
