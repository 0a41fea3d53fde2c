"""What stands in the tree where Python would import, call or look up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle asks for; it is not looked up.

    Attributes:
        module: where it would be imported from.
        name: in the module.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """A call that the pickle asks for; it is not made.

    Attributes:
        function: what would be called: a :class:`Global`, a :class:`Persistent` or a :class:`Call`.
        args: of the call.
        keywords: of the call.
        state: that the result would be given; None for none.
        elements: that would be appended to the result.
        items: that would be set in the result.
    """

    function: Any
    args: tuple[Any, ...]
    keywords: dict[Any, Any] = field(default_factory=dict)
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    items: dict[Any, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Call({_name(self.function)}, {len(self.args)} arguments)"


@dataclass(eq=False, repr=False, slots=True)
class Persistent:
    """Something that lies outside the pickle.

    Attributes:
        id: that the pickle knows it by.
    """

    id: Any

    def __repr__(self) -> str:
        return f"Persistent({type(self.id).__name__})"


def _name(function: Any) -> str:
    return str(function) if isinstance(function, Global) else type(function).__name__


def described(node: Any) -> str:
    """Return a node in a few words, for a message: a tree may be large, or hold itself."""
    if isinstance(node, Call):
        return f"a call of {_name(node.function)[:200]}"
    if isinstance(node, Global):
        return f"the name {str(node)[:200]}"
    if node is None or isinstance(node, (bool, int, float)):
        return repr(node)
    kind = type(node).__name__.lower()
    size = f" of {len(node)}" if hasattr(node, "__len__") else ""
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}{size}"
