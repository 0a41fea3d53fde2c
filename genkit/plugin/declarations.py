"""Read what components declare, without importing the libraries that they compute with.

torch takes seconds to import, and the settings of a component do not depend on it. So they are read
in a forked process, in which a library that is not imported yet is a placeholder. Placeholders are
passed on, called, subclassed and named in annotations like what they stand for. Whatever needs
the value of one, such as a comparison, ends the reading without an answer, and the caller imports
the libraries as usual. Nothing is stored, so nothing can be out of date.
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
    """Return what a function returns that only looks at declarations of components.

    Args:
        read: function that imports components and returns plain values, as JSON can hold them.
        registry: registry with the packages of all plugins, whose code is run.

    Returns:
        The value; None where it needs more than declarations, or where nothing would be gained.
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
    """Write the value of a function to a pipe, or nothing, and end the process."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):  # what a module prints on import is printed when it is imported again
            os.dup2(nowhere, output)
        kept = {*sys.stdlib_module_names, *(name.partition(".")[0] for name in sys.modules)}
        sys.meta_path.insert(0, _Libraries(kept | registry.packages.keys()))
        text = json.dumps(read()).encode()
        with os.fdopen(to, "wb") as file:
            file.write(text)
    finally:
        os._exit(0)  # also after an error: there is no answer then


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
    """Stands for a module: each of its names is a placeholder."""

    def __getattr__(self, name: str) -> Placeholder:
        return _attribute(name)


class Needed(BaseException):
    """The value of a placeholder is needed; no Exception, so that no plugin catches it."""


class _Absent:
    """Base of classes that are derived from placeholders, which no settings may be."""

    def __init_subclass__(cls, **arguments: object) -> None:
        if issubclass(cls, Settings):
            raise Needed


def _needed(*_: object) -> Never:
    raise Needed


class Placeholder:
    """Stands for an object of a library, whose value is not known."""

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
    if name.startswith("__"):  # by which Python asks whether an object is of some sort
        raise AttributeError(name)
    return Placeholder()
