"""A second device without hardware: tensors whose device is a GPU, with values on the CPU.

PyTorch's fake tensors are similar, but have no values. So code that may read a value, such as a
coupler, could not be run to its end. Inside :class:`SecondDevice`, a tensor on ``cuda:0`` is a
:class:`There`, and each operation is computed on the CPU. An operation raises an error if it

- has tensors of both devices, as on a GPU (a 0-d tensor on the CPU is a number, and may be mixed;
  indices on the CPU are copied),
- draws on the device with a generator of the CPU (PyTorch makes no other one without a GPU),
- returns a value or a shape to the host (``item``, ``bool``, ``cpu``, ``nonzero``, boolean masks),
  for which the host would wait. Places that may do so are listed, see :meth:`SecondDevice.reading`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import genkit

DEVICE = torch.device("cuda", 0)
CPU = torch.device("cpu")
HERE = Path(__file__)
PACKAGES = (str(Path(genkit.__file__).parent), str(HERE.parents[2] / "plugins"))
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default, aten.copy.default)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)


class WrongDeviceError(AssertionError):
    """An operation with tensors of two devices."""


class ReadError(AssertionError):
    """A value or a shape that the host reads from the device."""


class There(torch.Tensor):
    """A tensor on the second device.

    For PyTorch's C++ code it is on ``meta``, the only device besides the CPU that every build has.

    Attributes:
        value: tensor on the CPU with the same values.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)

    def __new__(cls, value):
        self = cls._make_wrapper_subclass(
            cls,
            value.shape,
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device="meta",
        )
        self.value = value
        return self

    def new_tensor(self, data, dtype=None):
        return torch.tensor(data, dtype=dtype or self.dtype, device=DEVICE)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise ReadError(f"{func} outside of the block")


class SecondDevice(TorchDispatchMode):
    """Computes on the second device inside the block, in the thread of the block."""

    def __init__(self):
        super().__init__()
        self._allowed, self._places = frozenset(), set()
        self._patches = ExitStack()

    @contextmanager
    def reading(self, allowed: Collection[str]) -> Iterator[set[str]]:
        """Allow functions of genkit to read from the device in this block.

        Args:
            allowed: functions as ``module.py:qualified.name``.

        Yields:
            The functions that read so far.
        """
        before = self._allowed, self._places
        self._allowed, self._places = frozenset(allowed), set()
        try:
            yield self._places
        finally:
            self._allowed, self._places = before

    def __enter__(self):
        with ExitStack() as patches:
            for target, replacement in _DRIVER.items():
                patches.enter_context(mock.patch(target, replacement))
            lifts = torch._C._only_lift_cpu_tensors()
            torch._C._set_only_lift_cpu_tensors(True)
            patches.callback(torch._C._set_only_lift_cpu_tensors, lifts)
            self._patches = patches.pop_all()
        return super().__enter__()

    def __exit__(self, *error):
        self._patches.close()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        there = {id(t.value): t for t in tensors if isinstance(t, There)}
        device, on_device = kwargs.get("device"), bool(there)
        if device is not None:
            on_device, kwargs["device"] = torch.device(device).type != "cpu", CPU
        if there:
            self._check(func, args, kwargs, tensors, on_device)
        generator = kwargs.get("generator")
        if on_device and generator is not None:
            raise WrongDeviceError(f"{func} on {DEVICE} with a generator on the CPU")
        values = {name: _mapped(_value, item) for name, item in kwargs.items()}
        result = func(*_mapped(_value, args), **values)
        if there and isinstance(result, (bool, int, float, complex)):
            self._read(func)

        def wrapped(tensor):
            return there[id(tensor)] if id(tensor) in there else There(tensor)

        return _mapped(wrapped, result) if on_device else result

    def _check(self, func, args, kwargs, tensors, on_device):
        here = [t for t in tensors if not isinstance(t, There)]
        copies = func in COPIES
        indices = [t for t in args[1] if t is not None] if func in INDEXING else []
        mixed = [t for t in here if t.ndim and not any(t is index for index in indices)]
        if mixed and not copies:
            shapes = ", ".join(f"{list(t.shape)} on {t.device}" for t in tensors)
            raise WrongDeviceError(f"{func} with tensors on two devices: {shapes}")
        writes_here = func._schema.is_mutable and bool(here) and self._writes(func, args, kwargs)
        if writes_here and not copies:
            raise WrongDeviceError(f"{func} writes a result on {DEVICE} to a tensor on the CPU")
        shape_is_read = torch.Tag.dynamic_output_shape in func.tags
        if func in INDEXING:
            masks = [t for t in indices if t.dtype in (torch.bool, torch.uint8)]
            shape_is_read = any(isinstance(mask, There) for mask in masks)
        if not on_device or writes_here or shape_is_read:
            self._read(func)

    def _writes(self, func, args, kwargs):
        """Return whether an operation writes to a tensor on the CPU."""
        declared = func._schema.arguments
        given = {**dict(zip([a.name for a in declared], args, strict=False)), **kwargs}
        written = _tensors(given.get(a.name) for a in declared if a.is_write)
        return not all(isinstance(t, There) for t in written)

    def _read(self, func):
        frame = inspect.currentframe()
        while frame is not None and not frame.f_code.co_filename.startswith(PACKAGES):
            frame = frame.f_back
        place = "the test"
        if frame is not None:
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_qualname}"
            if place in self._allowed:
                self._places.add(place)
                return
        raise ReadError(f"{func} in {place} reads from the device")


def _value(tensor):
    return tensor.value if isinstance(tensor, There) else tensor


def _tensors(items):
    """Yield all tensors in nested lists; faster than the function of PyTorch."""
    for item in items:
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (tuple, list)):
            yield from _tensors(item)


def _mapped(change, item):
    """Return an item with all its tensors changed."""
    if isinstance(item, torch.Tensor):
        return change(item)
    if isinstance(item, (tuple, list)):
        return type(item)([_mapped(change, part) for part in item])
    return item


# What only a driver provides, and what compares devices in C++, where the device is "meta".
_KERNELS = [*torch.utils._foreach_utils._get_foreach_kernels_supported_devices(), "meta"]
_DRIVER = {
    "torch.cuda._lazy_init": lambda: None,
    "torch.cuda.Stream": lambda device: None,
    "torch.cuda.stream": lambda stream: nullcontext(),
    "torch.cuda.device": lambda device: nullcontext(),
    "torch.cuda.get_device_name": lambda device: "second device",
    "torch.cuda.manual_seed": lambda seed: None,
    "torch.cuda.get_rng_state": lambda device: None,
    "torch.cuda.set_rng_state": lambda state, device: None,
    "torch.Tensor.pin_memory": lambda self: self,
    "torch.utils._foreach_utils._get_foreach_kernels_supported_devices": lambda: _KERNELS,
}
