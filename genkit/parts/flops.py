"""Count the arithmetic operations of matrix products, convolutions and attention in a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry
from torch.utils.module_tracker import ModuleTracker

_NO_NETWORK = {"aten", "prim", "prims", "c10d", "_c10d_functional", "profiler"}
"""Namespaces of PyTorch's own operators, and of communication and profiling.

Of its own operators, PyTorch's counter counts those whose arithmetic dominates a network: matrix
products, convolutions and attention.
"""


class FlopCount:
    """Number of operations so far in a ``with`` block of :func:`counting_flops`."""

    def __init__(self, counter: FlopCounterMode, operators: _Operators) -> None:
        self._counter = counter
        self._operators = operators

    @property
    def total(self) -> int:
        """Number of multiplications and additions, each counted as one operation."""
        return int(self._counter.get_total_flops())

    @property
    def uncounted(self) -> Sequence[str]:
        """Names of the third-party operators in the block, whose operations are not counted."""
        return sorted(self._operators.unknown)


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the names of operators that :class:`FlopCounterMode` does not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.unknown: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func.namespace not in _NO_NETWORK and func._overloadpacket not in flop_registry:
            self.unknown.add(func._schema.name)
        return func(*args, **(kwargs or {}))


class _NoModules(ModuleTracker):
    """A module tracker without hooks, since PyTorch's hooks break ``torch.autograd.grad``.

    They fail for gradients with respect to an input, which guidance computes.
    """

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        return


@contextmanager
def counting_flops() -> Iterator[FlopCount]:
    """Count the operations of a block, including backward passes.

    Inside the block, attention is computed with explicit matrices, since PyTorch's counter does not
    support all fused kernels. This changes results only by rounding. Element-wise operations, such
    as activations and normalization, are not counted.
    """
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    with _Operators() as operators, counter, sdpa_kernel(SDPBackend.MATH):
        yield FlopCount(counter, operators)


def call_flops(model: nn.Module, x: Tensor, sigma: Tensor, labels: Tensor | None) -> float:
    """Return the mean number of operations per item in a call of a denoiser.

    Args:
        model: denoiser.
        x: ``[B, *shape]`` noisy items.
        sigma: ``[B]`` noise levels.
        labels: ``[B]`` int64 classes or None.
    """
    with counting_flops() as count, torch.no_grad():
        model(x, sigma, labels)
    return count.total / len(x)
