"""Read the declarations of components without importing torch and other libraries.

torch takes seconds to import, and the settings of a component do not depend on it. So they are read
in a forked process, in which a library that is not imported yet is replaced by a placeholder.
Placeholders can be passed, called, subclassed and used in annotations. Code that needs the value of
one, such as a comparison, ends the process without a result, and the caller imports the libraries.
Nothing is stored, so nothing can be out of date.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Never

from genkit.fields import Settings
from genkit.plugin.registry import Registry


def declared(read: Callable[[], Any], registry: Registry) -> Any:
    """Return the result of a function that reads only declarations of components.

    Args:
        read: function that imports components and returns values of JSON.
        registry: registry with the packages of all plugins, which are imported as usual.

    Returns:
        Result of the function; None if it needs more than declarations, or if torch is imported.
    """
    idle = "torch" not in sys.modules and threading.active_count() == 1
    if sys.platform == "win32" or not idle:
        return None
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(read, registry, question)
    os.close(question)
    with os.fdopen(answer, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    return json.loads(text or "null")


def _answer(read: Callable[[], Any], registry: Registry, to: int) -> Never:
    """Write the result of a function to a pipe, and end the process; without result on an error."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):  # output of modules on import is printed by the real import later
            os.dup2(nowhere, output)
        kept = {*sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
        sys.meta_path.insert(0, _Libraries(kept | registry.packages.keys()))
        text = json.dumps(read()).encode()
        with os.fdopen(to, "wb") as file:
            file.write(text)
    finally:
        os._exit(0)  # also after an error, in which case the pipe is empty


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
        """Run nothing."""


class _Module(ModuleType):
    """A module each of whose names is a placeholder."""

    def __getattr__(self, name: str) -> Placeholder:
        return _attribute(name)


class Needed(BaseException):
    """Raised where the value of a placeholder is needed; no Exception, so no plugin catches it."""


class _Absent:
    """Base of classes that are derived from placeholders, which must not be settings."""

    def __init_subclass__(cls, **arguments: object) -> None:
        if issubclass(cls, Settings):
            raise Needed


def _needed(*_: object) -> Never:
    raise Needed


class Placeholder:
    """Placeholder of an object of a library, whose value is unknown."""

    def __getattr__(self, name: str) -> Placeholder:
        return _attribute(name)

    def __call__(self, *values: object, **arguments: object) -> Placeholder:
        return Placeholder()

    def __getitem__(self, key: object) -> Placeholder:
        return Placeholder()

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (type("Absent", (_Absent,), {}),)  # one each: bases must differ

    def __or__(self, other: object) -> Placeholder:
        return self

    __ror__ = __or__
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        # ``typing`` compares the arguments of its types with special forms, such as Any.
        return False if getattr(other, "__module__", "") == "typing" else _needed()

    __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _needed
    __bool__ = __len__ = __iter__ = __contains__ = _needed
    __int__ = __float__ = __index__ = _needed
    __str__ = __repr__ = __format__ = _needed


def _attribute(name: str) -> Placeholder:
    if name.startswith("__"):  # Python looks these up to determine the type of an object
        raise AttributeError(name)
    return Placeholder()
