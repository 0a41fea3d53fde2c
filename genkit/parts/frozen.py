"""Wrapper for a trained network that another network uses."""

from __future__ import annotations

from typing import Any

from torch import nn


class Frozen:
    """A network of an earlier stage that another network uses and that is not trained.

    It is not a submodule of the other network. So its weights are not in the optimizer, the average
    or the checkpoint, and ``train()`` of the other network does not affect it.

    Args:
        module: module of a :class:`~genkit.interfaces.Trained`, in eval mode, with gradients
            disabled.

    Example:
        >>> import torch
        >>> outer = nn.Linear(2, 2)
        >>> outer.encoder = Frozen(nn.Linear(2, 3))
        >>> sorted(outer.state_dict())
        ['bias', 'weight']
        >>> outer.encoder(torch.zeros(1, 2)).shape
        torch.Size([1, 3])
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *args: Any) -> Any:
        """Return the output of the module."""
        return self.module(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self  # an average of weights copies the outer network; its copy can use this object
