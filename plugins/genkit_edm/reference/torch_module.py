"""Pickled modules of the reference: class, constructor arguments and tensors.

The reference pickles an instance as a call of ``_reconstruct_persistent_obj`` with a dictionary of
the class's source code, the class's name and the instance's state. The source code is ignored.
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
_MAX_MODULES = 20_000
_MAX_DEPTH = 32


@dataclass(frozen=True)
class Module:
    """A pickled module.

    Attributes:
        class_name: name of its class in the reference or in torch.
        state: values of its attributes, keyed by attribute name.
    """

    class_name: str
    state: Mapping[Any, Any]


def parse_module(node: Any) -> Module:
    """Return the module that a node of the pickle describes.

    Raises:
        DataError: the node is not a module.
    """
    if not isinstance(node, Call):
        raise DataError(
            f"an object in the file must be a module, got {describe(node)}", Code.WRONG_KIND
        )
    if node.function == _RECONSTRUCT and len(node.args) == 1:
        meta = mapping(node.args[0])
        if meta.get("type") != "class" or meta.get("version") != _VERSION:
            raise DataError(
                f"modules must be classes of format version {_VERSION} of the reference",
                Code.WRONG_KIND,
            )
        class_name, state = meta.get("class_name"), meta.get("state")
    elif isinstance(node.function, Global) and node.function.module.startswith("torch.nn.modules."):
        class_name, state = node.function.name, node.state
    else:
        raise DataError(
            f"modules must be classes of the reference or of torch, got {describe(node)}",
            Code.WRONG_KIND,
        )
    if not isinstance(class_name, str):
        raise DataError(
            f"class_name must be a string, got {describe(class_name)}", Code.INVALID_NAME
        )
    return Module(class_name, mapping(state))


def read_arguments(module: Module) -> dict[str, Any]:
    """Return the constructor arguments of a module of the reference.

    Raises:
        DataError: the arguments are not recorded, are not plain values, or contradict the
            attributes.
    """
    positional, named = module.state.get("_init_args"), module.state.get("_init_kwargs")
    if positional != ():
        raise DataError(
            f"the arguments of {module.class_name} must be recorded by name",
            Code.MISSING_KEY,
        )
    arguments = {}
    for name, value in mapping(named).items():
        if not isinstance(name, str):
            raise DataError(
                f"names of arguments must be strings, got {describe(name)}", Code.INVALID_NAME
            )
        arguments[name] = _plain(value, name, depth=0)
    for name, value in arguments.items():
        attribute = module.state.get(name, value)
        if isinstance(attribute, (bool, int, float, str)) and attribute != value:
            raise DataError(
                f"{name} of {module.class_name} must be one value, got argument {value} and "
                f"attribute {attribute}",
                Code.CONFLICT,
            )
    return arguments


def iterate_tensors(module: Module) -> Iterator[tuple[str, Any]]:
    """Yield the name and the node of every tensor in the state dictionary.

    Raises:
        DataError: modules are nested too deeply, are too many, or have names that torch does not
            allow.
    """
    waiting = [("", module, 0)]
    modules = 0
    while waiting:
        prefix, here, depth = waiting.pop()
        modules += 1
        if modules > _MAX_MODULES or depth > _MAX_DEPTH:
            raise DataError(
                f"the network must have at most {_MAX_MODULES} modules, nested at most "
                f"{_MAX_DEPTH} deep, got more",
                Code.UNSAFE,
            )
        transient = _names(here.state.get("_non_persistent_buffers_set", set()))
        for part in ("_parameters", "_buffers"):
            for name, node in _parts(here, part):
                if node is not None and not (part == "_buffers" and name in transient):
                    yield prefix + name, node
        children = [(name, node) for name, node in _parts(here, "_modules") if node is not None]
        waiting += [
            (f"{prefix}{name}.", parse_module(node), depth + 1) for name, node in reversed(children)
        ]


def mapping(node: Any) -> Mapping[Any, Any]:
    """Return the items of a dictionary, ordered or not.

    Raises:
        DataError: the node is not a dictionary.
    """
    return dictionary(node, _DICTIONARIES)


def _names(node: Any) -> Collection[Any]:
    """Return the names in a set. Before pickle protocol 4, a set is a call with a list."""
    if isinstance(node, Call) and str(node.function) in _SETS and len(node.args) == 1:
        node = node.args[0]
    if not isinstance(node, (set, list)) or len(node) > 1000:
        raise DataError(
            f"names of buffers must be a set of at most 1,000 names, got {describe(node)}; "
            "download the file again",
            Code.WRONG_TYPE,
        )
    return node


def _parts(module: Module, kind: str) -> Iterator[tuple[str, Any]]:
    if kind not in module.state:
        raise DataError(f"{kind} is missing from a {module.class_name}", Code.NOT_FOUND)
    for name, node in mapping(module.state[kind]).items():
        if not isinstance(name, str) or not name or "." in name:
            raise DataError(
                f"names in {kind} of a {module.class_name} must be strings without dots, got "
                f"{describe(name)}",
                Code.INVALID_NAME,
            )
        yield name, node


def _plain(value: Any, name: str, depth: int) -> Any:
    """Convert an argument to a JSON value, with tuples as lists."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)) and depth < 3 and len(value) <= 1000:
        return [_plain(item, name, depth + 1) for item in value]
    if isinstance(value, Call) and len((number := array(value)).shape) == 0:
        return number.item()
    raise DataError(
        f"the argument {name} must be a plain value, got {describe(value)}", Code.WRONG_TYPE
    )
