"""Add the names of a component and its plugin to errors caused by its code or its results."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

from torch import Tensor

from genkit.errors import (
    Code,
    DataError,
    GenkitError,
    InterruptedRun,
    PluginError,
    RecipeError,
    SettingError,
)
from genkit.machine import is_of_the_disk, is_out_of_memory
from genkit.plugin.manager import OURS, load_plugins
from genkit.plugin.registry import Entry, Registry, in_words
from genkit.types import Batch

T = TypeVar("T")


@contextmanager
def plugin_errors(
    registry: Registry | None = None, component: object | None = None
) -> Iterator[None]:
    """Convert an error in a third-party plugin's code to a PluginError with the plugin's name.

    A genkit error that such code raises keeps its type, and its message begins with the component.
    Errors in the code of genkit and its own plugins are not changed, nor are errors of the machine,
    such as a full disk.

    Args:
        registry: registry of the plugins; None to load it when an error occurs.
        component: component whose bound object is called in the block. An error in code of its
            plugin that belongs to no component is attributed to this component.

    Raises:
        PluginError: the code of a third-party plugin raised an error. The message contains
            component, plugin, distribution, version, file and line.
    """
    try:
        yield
    except GenkitError as error:
        _name(error, registry, component)
        raise
    except (Exception, SystemExit) as error:
        if found := plugin_error_of(error, registry, component):
            raise found from error
        raise


def plugin_error_of(
    error: BaseException, registry: Registry | None = None, component: object | None = None
) -> PluginError | None:
    """Return the PluginError for an error in a third-party plugin's code; None for other errors.

    Args:
        error: caught error, with its traceback.
        registry: registry of the plugins; None to load it.
        component: component whose bound object was called, if any.
    """
    if isinstance(error, GenkitError) or is_of_the_disk(error) or is_out_of_memory(error):
        return None
    source = _source(error, registry or load_plugins().registry, component)
    if source is None:
        return None
    name, frame, line = source
    return PluginError(
        f"{name} raised {in_words(error)} ({frame.f_code.co_filename}, line {line}); report it to "
        "the author of the plugin, with the output of the same command with --traceback"
    )


def _name(error: GenkitError, registry: Registry | None, component: object | None) -> None:
    """Prefix the message of an error with the third-party component whose code raised it."""
    if isinstance(error, InterruptedRun | RecipeError | SettingError):
        return  # not the component's fault, or located in a recipe
    source = _source(error, registry or load_plugins().registry, component)
    raising = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1]
    # Only if the component's own code raised the error: genkit's messages begin with the component.
    if source and source[1] is raising and str(source[0]) not in str(error):
        error.args = (f"{source[0]}: {error}",)


@contextmanager
def forbid_changes(component: object, **arguments: Batch | Tensor | None) -> Iterator[None]:
    """Raise DataError if a component changes its arguments in place inside the block.

    PyTorch's version counters of tensors are compared, without copies or synchronization with the
    device. Changes through NumPy are not detected.

    Args:
        component: component, or the result of its ``bind``, that is called in the block.
        arguments: tensors and batches that are passed in the call, by name.

    Raises:
        DataError: an argument was changed; the message contains component and argument.
    """
    before = {name: _changes(value) for name, value in arguments.items()}
    yield
    for name, value in arguments.items():
        if _changes(value) != before[name]:
            raise fault(
                component,
                f"must not change its arguments, but changed {name} in place; compute on a copy",
                Code.CHANGED,
            )


def _changes(argument: Batch | Tensor | None) -> list[int]:
    parts = vars(argument).values() if isinstance(argument, Batch) else [argument]
    tensors = [part for part in parts if isinstance(part, Tensor)]
    # Inference tensors have no version counter, and cannot be changed outside inference mode.
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def fault(component: object, reason: str, code: Code = Code.INVALID_RESULT) -> DataError:
    """Return the error for an invalid result; its message begins with component and plugin."""
    return DataError(f"{label_of(component)} {reason}", code)


def require_type(component: object, method: str, result: T, kind: type) -> T:
    """Return the result of a component's method if it has the type that the interface requires.

    Raises:
        DataError: the type is wrong; the message contains component and plugin.
    """
    if not isinstance(result, kind):
        got = type(result).__name__
        raise fault(component, f"must return {kind.__name__} from {method}, got {got}")
    return result


def require_method(component: object, bound: T, method: str) -> T:
    """Return the result of a component's ``bind`` if it has the required method.

    Raises:
        DataError: the method is missing; the message contains component and plugin.
    """
    if not callable(getattr(bound, method, None)):
        got = type(bound).__name__
        raise fault(component, f"must bind to an object with a method {method}, got {got}")
    return bound


def label_of(component: object, registry: Registry | None = None) -> str:
    """Return a label of a component for messages: its kind, name, plugin and distribution.

    If no plugin registers the component, the label is the name of its class, or that of the
    function if it is one. If ``registry`` is None, the plugins are loaded.
    """
    try:
        return str((registry or load_plugins().registry).entry_of(component))
    except PluginError:
        return str(getattr(component, "__name__", type(component).__name__))


def _source(
    error: BaseException, registry: Registry, component: object | None
) -> tuple[Entry | str, FrameType, int] | None:
    """Return the innermost third-party component or plugin of a traceback, with frame and line."""
    source: tuple[Entry | str, FrameType, int] | None = None
    outermost: Entry | None = None
    with suppress(PluginError):  # a component that no plugin registers
        outermost = None if component is None else registry.entry_of(component)
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        owners = registry.packages.get(package, set())
        if not owners or any(owner.distribution == OURS for owner in owners):
            continue
        entry = _component(frame, [e for e in registry.entries() if e.owner in owners])
        caller = source[0] if source else outermost
        if entry is None and isinstance(caller, Entry) and caller.owner in owners:
            entry = caller  # a function of the plugin that the component called
        name = entry or " or ".join(sorted(map(str, owners)))
        source = name, frame, line
    return source


def _component(frame: FrameType, entries: list[Entry]) -> Entry | None:
    """Return the component to which the code of a frame belongs; None if that is ambiguous."""
    module = frame.f_globals.get("__name__", "")
    itself = frame.f_locals.get("self")
    targets = {
        f"{type(itself).__module__}:{type(itself).__qualname__}",  # also in inherited code
        f"{module}:{frame.f_code.co_qualname.partition('.')[0]}",
    }
    matches = [entry for entry in entries if entry.target in targets]
    matches = matches or [entry for entry in entries if entry.target.partition(":")[0] == module]
    return matches[0] if len(matches) == 1 else None
