"""Modules that the reference pickled: names, constructor and tensors, without their source code.

It pickles an instance of its classes as a call of ``_reconstruct_persistent_obj`` with a dictionary
of the class's source code, its name, and what the instance holds. The source is dropped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genkit.errors import Code, DataError
from genkit.pickles import Call, Global, array, describe
from genkit.pickles import mapping as dictionary

_RECONSTRUCT = Global("torch_utils.persistence", "_reconstruct_persistent_obj")
_VERSION = 6
_DICTIONARIES = ("collections.OrderedDict", "dnnlib.util.EasyDict")
_SETS = ("builtins.set", "__builtin__.set")
_MOST_MODULES = 20_000
_DEEPEST = 32


@dataclass(frozen=True)
class Module:
    """An instance of a module.

    Attributes:
        class_name: of the reference's class, or of torch's.
        state: what it holds, by its attributes' names.
    """

    class_name: str
    state: Mapping[Any, Any]


def module_of(node: Any) -> Module:
    """Return the module that a note of the pickle stands for.

    Raises:
        DataError: it stands for something else.
    """
    if not isinstance(node, Call):
        raise DataError(f"{describe(node)} is no module", Code.WRONG_KIND)
    if node.function == _RECONSTRUCT and len(node.args) == 1:
        told = mapping(node.args[0])
        if told.get("type") != "class" or told.get("version") != _VERSION:
            raise DataError(
                f"a module is not a class in version {_VERSION} of the reference", Code.WRONG_KIND
            )
        class_name, state = told.get("class_name"), told.get("state")
    elif isinstance(node.function, Global) and node.function.module.startswith("torch.nn.modules."):
        class_name, state = node.function.name, node.state
    else:
        raise DataError(
            f"{describe(node)} is no module of the reference or of torch", Code.WRONG_KIND
        )
    if not isinstance(class_name, str):
        raise DataError(f"{describe(class_name)} is no name of a class", Code.INVALID_NAME)
    return Module(class_name, mapping(state))


def constructor(module: Module) -> dict[str, Any]:
    """Return the arguments that a module of the reference was made with.

    Raises:
        DataError: they were not recorded, are not plain, or contradict the module's attributes.
    """
    positional, named = module.state.get("_init_args"), module.state.get("_init_kwargs")
    if positional != ():
        raise DataError(
            f"the arguments of {module.class_name} were not recorded by their names",
            Code.MISSING_KEY,
        )
    arguments = {}
    for name, value in mapping(named).items():
        if not isinstance(name, str):
            raise DataError(f"{describe(name)} is no name of an argument", Code.INVALID_NAME)
        arguments[name] = _plain(value, name, depth=0)
    for name, value in arguments.items():
        kept = module.state.get(name, value)
        if isinstance(kept, (bool, int, float, str)) and kept != value:
            raise DataError(
                f"{module.class_name} was made with {name} {value}, and holds {kept}", Code.CONFLICT
            )
    return arguments


def tensors_of(module: Module) -> Iterator[tuple[str, Any]]:
    """Yield the name and the note of every parameter and buffer, as a state dictionary has them.

    Raises:
        DataError: the modules lie too deep, are too many, or have names that torch does not allow.
    """
    waiting = [("", module, 0)]
    modules = 0
    while waiting:
        prefix, here, depth = waiting.pop()
        modules += 1
        if modules > _MOST_MODULES or depth > _DEEPEST:
            raise DataError(
                f"there are more than {_MOST_MODULES} modules, or more than {_DEEPEST} inside one "
                "another",
                Code.UNSAFE,
            )
        passing = _names(here.state.get("_non_persistent_buffers_set", set()))
        for part in ("_parameters", "_buffers"):
            for name, node in _parts(here, part):
                if node is not None and not (part == "_buffers" and name in passing):
                    yield prefix + name, node
        inside = [(name, node) for name, node in _parts(here, "_modules") if node is not None]
        waiting += [
            (f"{prefix}{name}.", module_of(node), depth + 1) for name, node in reversed(inside)
        ]


def mapping(node: Any) -> Mapping[Any, Any]:
    """Return a dictionary, ordered or not, as what it holds.

    Raises:
        DataError: it is something else.
    """
    return dictionary(node, _DICTIONARIES)


def _names(node: Any) -> Collection[Any]:
    """Return the names in a set; before protocol 4 it was pickled as a call with a list."""
    if isinstance(node, Call) and str(node.function) in _SETS and len(node.args) == 1:
        node = node.args[0]
    if not isinstance(node, (set, list)) or len(node) > 1000:
        raise DataError(f"{describe(node)} is no set of names", Code.WRONG_TYPE)
    return node


def _parts(module: Module, kind: str) -> Iterator[tuple[str, Any]]:
    if kind not in module.state:
        raise DataError(f"a {module.class_name} has no {kind}", Code.NOT_FOUND)
    for name, node in mapping(module.state[kind]).items():
        if not isinstance(name, str) or not name or "." in name:
            raise DataError(
                f"{describe(name)} is no name in the {kind} of a {module.class_name}",
                Code.INVALID_NAME,
            )
        yield name, node


def _plain(value: Any, name: str, depth: int) -> Any:
    """Return a value that JSON has; a tuple as a list."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and depth < 3 and len(value) <= 1000:
        return [_plain(item, name, depth + 1) for item in value]
    if isinstance(value, Call) and len((number := array(value)).shape) == 0:
        return number.item()
    raise DataError(f"the argument {name} is {describe(value)}", Code.WRONG_TYPE)
