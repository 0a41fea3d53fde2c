"""How deep a tree is, found without recursion."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from genkit.pickles.nodes import Call, Persistent

_HOLDERS = (list, tuple, dict, Call, Persistent)


def is_deeper(tree: Any, limit: int) -> bool:
    """Whether containers and calls lie more than ``limit`` deep inside one another.

    One that holds itself, directly or not, adds no depth by that.
    """
    depths: dict[int, int] = {id(tree): 0}  # of what is done; 0 for what lies on the path
    path = [(tree, _children(tree))]
    deepest = [1]  # below each place of the path, itself counted
    while path:
        node, children = path[-1]
        child = next((c for c in children if isinstance(c, _HOLDERS)), None)
        if child is None:
            path.pop()
            depths[id(node)] = below = deepest.pop()
        elif id(child) not in depths:
            depths[id(child)] = 0
            path.append((child, _children(child)))
            deepest.append(1)
            continue
        else:
            below = depths[id(child)]
        if deepest:
            deepest[-1] = max(deepest[-1], below + 1)
        if below > limit or len(path) > limit:
            return True
    return False


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        return iter(node.values())
    if isinstance(node, Persistent):
        return iter((node.id,))
    if isinstance(node, Call):
        parts = (node.function, node.args, node.keywords, node.state, node.elements, node.items)
        return iter(parts)
    return iter(node) if isinstance(node, (list, tuple)) else iter(())
