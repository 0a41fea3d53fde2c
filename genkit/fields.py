"""Parse the fields of a component from the annotations of its class.

Construction in Python, recipes, fingerprints, ``genkit show`` and the reference pages all use the
result.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from genkit.errors import Key, PluginError, Problem, SettingError
from genkit.field_types import (
    Choice,
    FieldType,
    FilePathType,
    Group,
    List,
    Number,
    Optional,
    Plain,
    Reference,
    Slot,
)
from genkit.settings import PathMark, Ref, Setting, quote, setting_of


class Settings:
    """Base of frozen dataclasses whose fields are settings.

    The value of a field may be such a dataclass, too: a component, which a recipe selects with
    ``use``, or a group of settings.

    Raises:
        SettingError: the class is constructed with a value of a wrong type or out of range.
    """

    renamed: ClassVar[Mapping[str, str]] = types.MappingProxyType({})
    """Map from each key of an earlier version or of another project to its replacement."""

    is_component: ClassVar[bool] = False
    """Whether a table selects the class with ``use``, as for a component."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for field in fields_of(type(self)):
            value = field.type.convert(getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            problems += (problem.under(field.name) for problem in field.type.problems(value))
        if problems:
            raise SettingError(type(self).__name__, problems)


@dataclass(frozen=True)
class Field:
    """A field of a component.

    Attributes:
        name: key in a recipe.
        type: type of its values.
        setting: meaning and range.
        default: default value; ``dataclasses.MISSING`` if there is none.
    """

    name: str
    type: FieldType
    setting: Setting
    default: Any


def fields_of(cls: type[Any]) -> tuple[Field, ...]:
    """Return the fields of a component's class.

    Raises:
        PluginError: an annotation is invalid or is not a type that settings can have, or a field
            overrides a method, such as ``version``.
    """
    return _fields_of(cls)  # type: ignore[arg-type]  # mypy considers classes unhashable


@functools.cache
def _fields_of(cls: type[Any]) -> tuple[Field, ...]:
    try:
        annotations = typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise PluginError(
            f"{cls.__qualname__} must have annotations that can be evaluated, got {error}; import "
            "the types of its fields outside of TYPE_CHECKING"
        ) from error
    fields = []
    for field in dataclasses.fields(cls):
        if any(inspect.isfunction(vars(base).get(field.name)) for base in cls.__mro__):
            raise PluginError(
                f"{cls.__qualname__}.{field.name} must not have the name of a method; rename the "
                "setting"
            )
        setting = setting_of(field)
        try:
            parsed = _parse(annotations[field.name], setting)
        except TypeError as error:
            raise PluginError(
                f"{cls.__qualname__}.{field.name} must have a type that a recipe can write, got "
                f"{error}; write bool, int, float, str, Literal, Mapping[str, Any], a reference "
                "such as genkit.artifacts.DenoiserRef, a kind of component, or a tuple of these "
                "or | None"
            ) from None
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        fields.append(Field(field.name, parsed, setting, default))
    return tuple(fields)


def leaves_of(
    component: Settings, *above: str | int, result_only: bool = False
) -> Iterator[tuple[Key, FieldType, Any]]:
    """Yield key, type and value of each setting of a component and of the components in it.

    The items of a list are yielded one by one; None is not yielded.

    Args:
        component: component with the settings.
        above: key of the component.
        result_only: whether to leave out settings that affect no result, and all components in
            them.
    """
    for field in fields_of(type(component)):
        if result_only and not field.setting.affects_result:
            continue
        value = getattr(component, field.name)
        for index, (kind, leaf) in enumerate(field.type.leaves(value)):
            key = (*above, field.name, *((index,) if isinstance(value, tuple) else ()))
            yield key, kind, leaf
            if isinstance(leaf, Settings):
                yield from leaves_of(leaf, *key, result_only=result_only)


def keys_of(component: Settings) -> Iterator[Key]:
    """Yield the keys of all settings of a component and of the components in them."""
    yield from ((field.name,) for field in fields_of(type(component)))
    for key, _, part in leaves_of(component):
        if isinstance(part, Settings):
            yield from ((*key, field.name) for field in fields_of(type(part)))


def _parse(annotation: Any, setting: Setting) -> FieldType:
    """Return the type that an annotation describes.

    Raises:
        TypeError: a part of the annotation is not a type that settings can have; the message is
            that part.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (int, float):
        return Number(annotation is int, setting)
    if annotation in (str, bool):
        return Plain(str, "a string") if annotation is str else Plain(bool, "true or false")
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return Slot(annotation) if annotation.is_component else Group(annotation)
    if origin is Annotated:
        if path := next((mark for mark in args[1:] if isinstance(mark, PathMark)), None):
            words = " or ".join(["a path", *map(quote, path.names)])
            return FilePathType(str, words, path.names)
        marks = [mark for mark in args[1:] if isinstance(mark, Ref)]
        if not marks:
            return _parse(args[0], setting)
        artifact = marks[0].artifact
        return Reference(str, f"the id of a stage with output {artifact.name}", artifact)
    if origin is Literal:
        return Choice(args, setting.renamed)
    if origin is Mapping:
        return Plain(Mapping, "a table")
    if origin in (typing.Union, types.UnionType) and len(args) == 2 and types.NoneType in args:
        return Optional(_parse(next(a for a in args if a is not types.NoneType), setting))
    if origin is tuple and args:
        any_length = args[-1] is Ellipsis
        inner = (_parse(arg, setting) for arg in args if arg is not Ellipsis)
        return List(tuple(inner), any_length)
    raise TypeError(inspect.formatannotation(annotation))
