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

MOST_TENSORS = 5_000
"""Maximum number of tensors of a network, about three times that of the largest U-Net of EDM2
or SDXL. Building as many takes about a second; more might take for ever."""

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
    try:
        with torch.device("meta"), _WithoutDraws():
            yield
    except (OverflowError, RuntimeError, TypeError) as error:  # Python and torch raise all three
        if not isinstance(error, OverflowError) and "overflow" not in str(error).lower():
            raise
        raise TooLargeError("the size of a tensor in bytes can have at most 64 bits") from error


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
_RANGES = (torch.arange, torch.linspace)
_NEW = (torch.empty, torch.zeros, torch.ones, torch.full, *_RANGES, *_DRAWS)


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
        if func in _NEW:
            self._require_small(func, args, options)
        return self._called(func, args, options)

    def _require_small(
        self, func: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
    ) -> None:
        """Raise TooLargeError if a new tensor exceeds the limits."""
        self._tensors += 1
        if self._tensors > MOST_TENSORS:
            raise TooLargeError(f"a network can have at most {MOST_TENSORS:,} tensors")
        if torch.device(options.get("device") or "meta").type == "meta":
            return
        if _elements(func, args) > MOST_ELEMENTS:
            raise TooLargeError(f"its constants can have at most {MOST_ELEMENTS:,} elements each")

    def _called(
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


def _elements(func: Callable[..., Any], args: tuple[Any, ...]) -> float:
    """Return the number of elements of a new tensor: the product of its sizes, or a bound of it."""
    if func in _RANGES:  # not computed on "meta", where PyTorch would import its compiler
        return max(args, default=0)
    sizes = args[0] if args and isinstance(args[0], Sequence) else args
    return math.prod(sizes)
