"""Find what the import of a plugin changed in its process."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module  # by name, since a plugin may replace it
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

_MODULES = (
    *("builtins", "contextlib", "copy", "csv", "dataclasses", "functools", "gzip", "hashlib"),
    *("importlib", "io", "itertools", "json", "math", "os", "pathlib", "pickle", "random"),
    *("shutil", "signal", "statistics", "struct", "subprocess", "sys", "tempfile", "threading"),
    *("time", "tomllib", "zipfile", "zlib"),
)
"""Modules of Python with which genkit computes values, writes files and starts processes. PyTorch
replaces a function of ``inspect``, and many libraries change ``logging`` and ``warnings``."""

_CODE = (FunctionType, BuiltinFunctionType, MethodType, type, classmethod, staticmethod)

_VARIABLES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR")
"""Environment variables that scikit-learn and the compiler of PyTorch add on import. They have no
effect on results."""


class ProcessState:
    """The state of this process that a plugin must not change on import."""

    def __init__(self) -> None:
        random.getrandbits(1)  # from then on, a few draws do not change the state, but a seed does
        self._path = len(sys.path)
        self._before = self._values()

    def changes(self) -> list[str]:
        """Return the names of the parts of the state that were changed since then."""
        before, after = self._before, self._values()
        return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {
            "the working directory": Path.cwd(),
            "sys.argv": tuple(sys.argv),
            "sys.path": tuple(sys.path[: self._path]),  # places at the end replace no module
            "the umask": _umask(),
            "an interval timer": _timers(),
            # Without the number of draws: the import of a library, such as rich, may draw.
            "Python's random state": random.getstate()[1][:-1],
            "the position in stdin": _position(0),
        }
        variables = {k: v for k, v in os.environ.items() if k not in _VARIABLES}
        values |= {f"environment variable {name}": value for name, value in variables.items()}
        values |= {f"signal {int(s)}": signal.getsignal(s) for s in signal.valid_signals()}
        values |= {key: value for name in _MODULES for key, value in _code(import_module(name))}
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            stream = getattr(sys, name, None)
            values[f"sys.{name}"] = id(stream), getattr(stream, "closed", None)
            values[f"file descriptor {number}"] = _file(number)
        torch = sys.modules.get("torch")
        # The initial state of PyTorch is known, so that it need not be imported before the plugin.
        dtype = torch.get_default_dtype() if torch else "torch.float32"
        values["PyTorch's default dtype"] = str(dtype)
        values["PyTorch's default device"] = str(torch.get_default_device() if torch else "cpu")
        values["PyTorch's gradient mode"] = torch.is_grad_enabled() if torch else True
        return values


def _code(module: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield the functions, classes and methods of a module by name, without private ones."""
    for name, value in _public(module):
        yield f"{module.__name__}.{name}", value
        if isinstance(value, type):
            yield from ((f"{module.__name__}.{name}.{n}", v) for n, v in _public(value))


def _public(owner: object) -> Iterator[tuple[str, object]]:
    for name, value in list(vars(owner).items()):
        if isinstance(value, _CODE) and (name[:1] != "_" or name[:2] == "__"):
            yield name, value


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _timers() -> bool:
    """Return whether a timer is set that sends a signal."""
    if sys.platform == "win32":
        return False
    timers = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF
    return any(signal.getitimer(timer)[0] for timer in timers)


def _file(descriptor: int) -> tuple[int, int] | None:
    with suppress(OSError):  # not open
        file = os.fstat(descriptor)
        return file.st_dev, file.st_ino
    return None


def _position(descriptor: int) -> int | None:
    with suppress(OSError):
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    return None
