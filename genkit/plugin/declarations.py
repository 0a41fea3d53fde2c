"""Read the declarations of genkit's own components without importing torch and other libraries.

torch takes seconds to import, and the settings of a component do not depend on it. They are
therefore read in a forked process, in which libraries that are not imported yet are replaced by
placeholders. Placeholders can be passed, called, subclassed and used in annotations. Code that
requires the value of a placeholder, such as a comparison, ends the process without a result; the
caller then imports the libraries.

A placeholder has every attribute, and importing it never fails. Code that tests which names a
library has, or whether it can be imported, would therefore be misled. For this reason, a component
of another distribution also ends the process. The settings of genkit's own components are tested to
be the same with and without placeholders.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Never

from genkit.fields import Settings
from genkit.plugin.manager import OURS
from genkit.plugin.registry import Entry, Registry

MOST_SECONDS = 20.0
"""Max time in seconds to wait for the result. Chosen, not tuned: reading takes less than 1 s."""


def declared(read: Callable[[Registry], Any], registry: Registry) -> Any:
    """Return the result of a function that reads only declarations of genkit's own components.

    Args:
        read: function that loads components of a registry and returns values for JSON.
        registry: registry with the packages of all plugins, which are imported as usual.

    Returns:
        Result of the function. None if it requires more than declarations or a component of
        another distribution, if torch is already imported, or if the process cannot be started or
        hangs.
    """
    idle = "torch" not in sys.modules and threading.active_count() == 1
    if sys.platform == "win32" or not idle:
        return None
    answer, question = os.pipe()
    try:
        child = os.fork()
    except OSError:  # no memory, or too many processes
        os.close(answer)
        os.close(question)
        return None
    if child == 0:
        os.close(answer)
        _answer(read, registry, question)
    os.close(question)
    with suppress(OSError, ValueError):
        return json.loads(_line(answer, child))
    return None


def _line(answer: int, child: int) -> bytes:
    """Return the line that a child process writes to a pipe, and end the process.

    The function does not wait for the end of the pipe, since a process that the child started may
    keep the pipe open.

    Raises:
        OSError: the pipe ended before the line, or the line was not complete in time.
    """
    until = time.monotonic() + MOST_SECONDS
    text = b""
    try:
        while not text.endswith(b"\n"):
            left = max(until - time.monotonic(), 0.0)
            part = os.read(answer, 1 << 16) if select.select([answer], [], [], left)[0] else b""
            if not part:
                raise OSError("no answer")
            text += part
    finally:
        os.close(answer)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):  # the system already did this if SIGCHLD is ignored
            os.waitpid(child, 0)
    return text


def _answer(read: Callable[[Registry], Any], registry: Registry, to: int) -> Never:
    """Write the result of a function to a pipe, and end the process; on an error, write nothing."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):  # output of modules on import is printed by the real import later
            os.dup2(nowhere, output)
        kept = {*sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
        sys.meta_path.insert(0, _Libraries(kept | registry.packages.keys()))
        text = json.dumps(read(_OwnComponents(registry))).encode()
        with os.fdopen(to, "wb") as file:
            file.write(text + b"\n")
    finally:
        _end()


def _end(*_: object) -> Never:
    """End the process at once. An exception could be caught by the code that uses a placeholder."""
    os._exit(0)


class _OwnComponents(Registry):
    """Registry that ends the process when a component of another distribution is loaded."""

    def __init__(self, registry: Registry) -> None:
        vars(self).update(vars(registry))

    def load(self, entry: Entry) -> type[Any]:
        return super().load(entry) if entry.owner.distribution == OURS else _end()


class _Libraries(MetaPathFinder, Loader):
    """Finds placeholders for installed libraries.

    Args:
        kept: top-level packages that are imported as usual.
    """

    def __init__(self, kept: set[str]) -> None:
        self._kept = kept

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package = fullname.partition(".")[0]
        if package in self._kept or PathFinder.find_spec(package) is None:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing, since a placeholder has no code."""


class _Module(ModuleType):
    """Module in which every name is a placeholder."""

    def __getattr__(self, name: str) -> Placeholder:
        return _attribute(self, name)


class _Absent:
    """Base of classes derived from placeholders; the process ends if such a class has settings."""

    def __init_subclass__(cls, **arguments: object) -> None:
        if issubclass(cls, Settings):
            _end()


class Placeholder:
    """Placeholder for an object of a library whose value is unknown."""

    def __getattr__(self, name: str) -> Placeholder:
        return _attribute(self, name)

    def __call__(self, *values: object, **arguments: object) -> Placeholder:
        return Placeholder()

    def __getitem__(self, key: object) -> Placeholder:
        return Placeholder()

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (type("Absent", (_Absent,), {}),)  # a new class, since the bases must differ

    def __or__(self, other: object) -> Placeholder:
        return self

    __ror__ = __or__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        # ``typing`` compares the arguments of its types with special forms, such as Any.
        return False if getattr(other, "__module__", "") == "typing" else _end()

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _end
    __bool__ = __len__ = __iter__ = __contains__ = _end
    __int__ = __float__ = __index__ = _end
    __str__ = __repr__ = __format__ = _end


def _attribute(of: object, name: str) -> Placeholder:
    """Return the placeholder for an attribute, which is the same at each access."""
    if name == "__version__":
        _end()
    if name.startswith("__"):  # Python looks these up to determine the type of an object
        raise AttributeError(name)
    attribute: Placeholder = vars(of).setdefault(name, Placeholder())
    return attribute
