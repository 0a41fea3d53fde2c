"""A trained network inside of another one that is trained, or only called."""

from __future__ import annotations

from typing import Any

from torch import nn


class Frozen:
    """A network of an earlier stage as a part that is not trained.

    It is no submodule of the network that holds it. So its weights are in neither optimizer,
    average nor checkpoint, and dropout of the other network does not switch on its own.

    Args:
        module: module of a :class:`~genkit.interfaces.Trained`, in eval mode and without gradients.

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
        """Return what the module returns."""
        return self.module(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self  # an average of weights copies the other network, and shares this one
