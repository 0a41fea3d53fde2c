"""Find what the import of a plugin changed in its process."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
import threading
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

_GENKIT = ("cli", "files", "plugin.manager", "plugin.probe", "recipe", "report.components")
"""Modules of genkit that are imported before a plugin, with those that they import. They do not
import PyTorch."""

_PLACE = str(Path(__file__).parents[1])  # of genkit

_CODE = (FunctionType, BuiltinFunctionType, MethodType, type, classmethod, staticmethod)

_VARIABLES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR")
"""Environment variables that scikit-learn and the compiler of PyTorch add on import. They have no
effect on results."""

_FINDERS = ("_distutils_hack", "absl")
"""Packages that add a finder at the beginning of ``sys.meta_path`` on import; TensorBoard imports
the second. The finders do not replace a module."""


class ProcessState:
    """The state of this process that a plugin must not change on import."""

    def __init__(self) -> None:
        random.getrandbits(1)  # from then on, a few draws do not change the state, but a seed does
        for name in (*_MODULES, *(f"genkit.{name}" for name in _GENKIT)):
            import_module(name)
        self._modules = dict(sys.modules)
        self._path, self._finders, self._hooks = len(sys.path), len(_finders()), len(sys.path_hooks)
        self._recursion = sys.getrecursionlimit()
        self._before = self._values()

    def changes(self) -> list[str]:
        """Return the names of the parts of the state that were changed since then."""
        before, after = self._before, self._values()
        return sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))

    def _values(self) -> dict[str, object]:
        values: dict[str, object] = {
            "the working directory": Path.cwd(),
            "sys.argv": tuple(sys.argv),
            # Places, finders and hooks at the end replace no module.
            "sys.path": tuple(sys.path[: self._path]),
            "sys.meta_path": tuple(_finders()[: self._finders]),
            "sys.path_hooks": tuple(sys.path_hooks[: self._hooks]),
            "the trace function": (sys.gettrace(), sys.getprofile()),
            "the recursion limit": min(sys.getrecursionlimit(), self._recursion),
            "the garbage collector": gc.isenabled(),
            "the folder of temporary files": tempfile.gettempdir(),
            "the child processes": _has_children(),
            # Other threads keep the process alive, which is found when it ends.
            "the daemon threads": [t.name for t in threading.enumerate() if t.daemon],
            "the umask": _umask(),
            "an interval timer": _timers(),
            # Without the number of draws: the import of a library, such as rich, may draw.
            "Python's random state": random.getstate()[1][:-1],
            "the position in stdin": _position(0),
        }
        values |= _limits()
        values |= {f"the module {name}": id(module) for name, module in self._compared()}
        variables = {k: v for k, v in os.environ.items() if k not in _VARIABLES}
        values |= {f"environment variable {name}": value for name, value in variables.items()}
        values |= {f"signal {int(s)}": signal.getsignal(s) for s in signal.valid_signals()}
        for name, module in self._modules.items():
            if name in _MODULES or name.startswith("genkit."):
                values |= _code(module)
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

    def _compared(self) -> Iterator[tuple[str, ModuleType]]:
        """Yield the modules that were imported before, and modules in place of genkit's."""
        for name, module in list(sys.modules.items()):
            place = str(getattr(module, "__file__", None))
            replaced = name.startswith("genkit.") and not place.startswith(_PLACE)
            if name in self._modules or replaced:
                yield name, module


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


def _finders() -> list[object]:
    finders: list[object] = list(sys.meta_path)
    return [f for f in finders if str(type(f).__module__).partition(".")[0] not in _FINDERS]


def _limits() -> dict[str, object]:
    """Return the limits of resources, such as the size of files; none on Windows."""
    if sys.platform == "win32":
        return {}
    import resource

    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {f"the limit {n}": resource.getrlimit(getattr(resource, n)) for n in names}


def _has_children() -> bool:
    """Return whether a child process is running; False on Windows, where no process is forked."""
    if sys.platform == "win32":
        return False
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # a process that has ended
            pass
        return True
    return False


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
