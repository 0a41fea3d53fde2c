"""Results of ``bind``, and the error if a component must be bound first."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from genkit.errors import UsageError
from genkit.types import DataSpec


class BoundNetwork(Protocol):
    """Result of :meth:`Network.bind`."""

    def build(self, spec: DataSpec) -> nn.Module:
        """Return the network for a kind of data, see :meth:`Network.build`."""
        ...


def unbound(component: object, method: str) -> UsageError:
    """Return the error for a call of a method that only the bound object implements."""
    name = type(component).__name__
    return UsageError(f"{name} refers to earlier stages; call bind(inputs).{method}(...)")
