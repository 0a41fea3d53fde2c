"""Inert records of the names, calls and external objects of a pickle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from genkit.errors import Code, DataError


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle would import.

    Attributes:
        module: module from which the name would be imported.
        name: qualified name in the module.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """A call that a pickle would make.

    Attributes:
        function: function to call: a :class:`Global`, a :class:`Persistent` or a :class:`Call`.
        args: positional arguments.
        state: state that would be set on the result; None if there is none.
        elements: values that would be appended to the result.
        items: items that would be set in the result.
    """

    function: Any
    args: tuple[Any, ...]
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)

    def append(self, value: Any) -> None:
        """Record a value that would be appended."""
        self.elements.append(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """A reference to an object outside of the pickle.

    Attributes:
        id: persistent id of the object.
    """

    id: Any


def describe(value: Any) -> str:
    """Return a short description for messages, since a value may be large or contain itself."""
    if isinstance(value, Call):
        function = value.function
        name = str(function) if isinstance(function, Global) else type(function).__name__
        return f"a call of {name[:200]}"
    if isinstance(value, Global):
        return f"the name {str(value)[:200]}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)[:200]
    kind = type(value).__name__.lower()
    size = f" of length {len(value)}" if hasattr(value, "__len__") else ""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}{size}"


def mapping(
    node: Any, classes: Collection[str] = ("collections.OrderedDict",)
) -> Mapping[Any, Any]:
    """Return the items of a dictionary.

    Args:
        node: dictionary, or the record of a call that constructs one.
        classes: qualified names of the dictionary classes that are accepted besides ``dict``.

    Raises:
        DataError: the node is neither.
    """
    if isinstance(node, dict):
        return node
    if isinstance(node, Call) and str(node.function) in classes and not node.args:
        return node.items
    raise DataError(f"a dictionary is required, got {describe(node)}", Code.WRONG_TYPE)
