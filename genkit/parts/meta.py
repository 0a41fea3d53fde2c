"""Build networks on the device "meta", whose tensors have shapes but no values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from genkit.errors import Code, DataError

MOST_TENSORS = 20_000
"""Maximum number of tensors of a network, about three times that of a mixture of 64 experts in each
of 32 layers. As many weights of ``nn.Linear`` took 2.0 to 2.5 s of CPU time to build, on a core of
a busy AMD EPYC; 100,000 took 10 s."""

MOST_ELEMENTS = 2**24
"""Maximum number of elements of a tensor with values that a network creates on another device while
it is built, such as the frequencies of an embedding; chosen, not tuned."""


class TooLargeError(DataError):
    """A network has more layers, or a larger tensor, than any machine can train."""

    code = Code.OUT_OF_MEMORY


@contextmanager
def without_memory() -> Iterator[None]:
    """Build networks inside the block on the device "meta", without drawing initial values.

    Raises:
        TooLargeError: a network has over ``MOST_TENSORS`` tensors, a tensor with values and more
            than ``MOST_ELEMENTS`` elements, or a tensor whose size in bytes exceeds 64 bits.
    """
    with torch.device("meta"), _WithoutDraws():
        yield


_IN_PLACE = (
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.zero_,
    Tensor.fill_,
    nn.init.normal_,
    nn.init.uniform_,
    nn.init.constant_,
    nn.init.kaiming_uniform_,
)
_DRAWS = (torch.randn, torch.rand)
_DRAWS_LIKE = (torch.randn_like, torch.rand_like)
_NEW = (
    *(torch.empty, torch.zeros, torch.ones, torch.full),
    *(torch.arange, torch.linspace),
    *_DRAWS,
)


class _WithoutDraws(TorchFunctionMode):
    """Skip assignments to tensors on the device "meta"; other devices are not changed.

    On "meta" PyTorch computes these functions in Python, and imports its compiler and sympy for
    some of them. That takes half as long as importing torch.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tensors = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        try:
            if func in _NEW:
                self._require_small(func, args, options)
            return self._call(func, args, options)
        except (OverflowError, RuntimeError, TypeError) as error:  # torch raises all three
            if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
                raise
            raise TooLargeError("the size of a tensor in bytes can have at most 64 bits") from error

    def _require_small(
        self, func: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> None:
        """Raise TooLargeError if a new tensor exceeds the limits."""
        self._tensors += 1
        if self._tensors > MOST_TENSORS:
            raise TooLargeError(f"a network can have at most {MOST_TENSORS:,} tensors")
        if torch.device(options.get("device") or "meta").type == "meta":
            return
        if _elements(func, args, options) > MOST_ELEMENTS:
            raise TooLargeError(f"its constants can have at most {MOST_ELEMENTS:,} elements each")

    def _call(
        self, func: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        if func not in (*_IN_PLACE, *_DRAWS, *_DRAWS_LIKE):
            return func(*args, **options)
        tensor = next((v for v in (*args, *options.values()) if isinstance(v, Tensor)), None)
        device = options.get("device") or ("meta" if tensor is None else tensor.device)
        if torch.device(device).type != "meta":
            return func(*args, **options)
        if func in _IN_PLACE:
            return tensor
        if tensor is not None:  # not with ``empty_like``, which imports sympy
            dtype = options.get("dtype") or tensor.dtype
            return torch.empty(tensor.shape, dtype=dtype, device=device)
        options.pop("generator", None)
        return torch.empty(*args, **options)


def _elements(func: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> float:
    """Return the number of elements of a new tensor, from valid arguments of its function.

    It is not computed on "meta", where PyTorch would import its compiler. For invalid arguments
    the number has no meaning; PyTorch raises an error for them.
    """
    given: dict[str, float]
    if func is torch.linspace:
        given = dict(zip(("start", "end", "steps"), args, strict=False), **options)
        return given.get("steps", 0)
    if func is torch.arange:
        only_end = len(args) == 1 and "end" not in options
        names = ("end",) if only_end else ("start", "end", "step")
        given = dict(zip(names, args, strict=False), **options)
        return (given.get("end", 0) - given.get("start", 0)) / (given.get("step", 1) or 1)
    sizes = options.get("size", args)
    return math.prod(sizes[0] if sizes and isinstance(sizes[0], Sequence) else sizes)
