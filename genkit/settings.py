"""Settings: what a field of a component means and which values it takes.

One description serves decoding a recipe, constructing a component in Python, ``genkit show`` and
the reference pages.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from genkit.errors import Problem

_KEY = "genkit"


@dataclass(frozen=True)
class Setting:
    """The meaning and the range of a field.

    Attributes:
        doc: meaning, with its unit.
        at_least: least value, itself allowed.
        above: greatest value that is too small.
        at_most: greatest value, itself allowed.
        below: least value that is too large.
        use: table that is decoded where a recipe leaves a slot out, such as ``{"use": "heun"}``.
        inherit: key of the recipe whose component fills the slot where a table leaves it out.
        infinite: whether ``inf`` is a value.
        affects_result: False for what changes neither weights nor samples, such as how often to
            save; such a setting is left out of the fingerprint.
    """

    doc: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    use: Mapping[str, Any] | None = None
    inherit: str = ""
    infinite: bool = False
    affects_result: bool = True

    @property
    def bounds(self) -> str:
        """The range in words, empty where there is none."""
        parts = [
            f"{word} {value:g}"
            for word, value in (
                ("at least", self.at_least),
                ("above", self.above),
                ("at most", self.at_most),
                ("below", self.below),
            )
            if value is not None
        ]
        return " and ".join(parts)

    def allows(self, value: float) -> bool:
        """Whether a number lies in the range."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )


@dataclass(frozen=True)
class Ref:
    """Marks a string as the id of an earlier stage that leaves ``output`` behind."""

    output: str


DenoiserRef = Annotated[str, Ref("denoiser")]
DiscriminatorRef = Annotated[str, Ref("discriminator")]
ClassifierRef = Annotated[str, Ref("classifier")]
SamplesRef = Annotated[str, Ref("samples")]


def setting(default: Any = dataclasses.MISSING, *, doc: str, **described: Any) -> Any:
    """Declare a field of a component.

    Args:
        default: its default; left out, the field is required unless ``use`` or ``inherit`` is
            given.
        doc: meaning, with its unit.
        described: the other attributes of :class:`Setting`.
    """
    metadata = {_KEY: Setting(doc=doc, **described)}
    if isinstance(default, (list, dict)):
        kept = default
        return dataclasses.field(default_factory=lambda: kept, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """Return what was declared of a field."""
    found: Setting = field.metadata.get(_KEY, Setting())
    return found


def annotations_of(cls: type[Any]) -> Mapping[str, Any]:
    """Return the resolved annotations of a component's fields, ``Annotated`` kept."""
    return typing.get_type_hints(cls, include_extras=True)


def field_problems(component: Any) -> Iterator[Problem]:
    """Yield what is wrong with the values of a component's fields."""
    annotations = annotations_of(type(component))
    for f in dataclasses.fields(component):
        found = value_problems(annotations[f.name], getattr(component, f.name), setting_of(f))
        yield from (problem.under(f.name) for problem in found)


def near_match(wrong: object, known: Iterable[str]) -> str:
    """Return ``did you mean "x"?`` for the closest known name, or an empty string."""
    if not isinstance(wrong, str):
        return ""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def value_problems(annotation: Any, value: Any, described: Setting) -> Iterator[Problem]:
    """Yield what is wrong with a plain value (no component) for an annotation.

    Types are strict: an integer is accepted where a float is meant, and nothing else is converted.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        yield from value_problems(args[0], value, described)
    elif origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return
        options = [a for a in args if a is not type(None)]
        found = [list(value_problems(option, value, described)) for option in options]
        if all(found):
            yield from (
                found[0]
                if len(found) == 1
                else [Problem((), f"{shown(value)} is none of {describe_type(annotation)}")]
            )
    elif origin is Literal:
        if not any(value == a and type(value) is type(a) for a in args):
            yield Problem(
                (),
                f"{shown(value)} is none of {', '.join(shown(a) for a in args)}",
                near_match(value, [str(a) for a in args]),
            )
    elif origin is tuple:
        if not isinstance(value, (list, tuple)):
            yield Problem((), f"{shown(value)} is not a list", f"write [{shown(value)}]")
            return
        if args[-1] is not Ellipsis and len(value) != len(args):
            yield Problem((), f"{len(value)} items where {len(args)} are needed")
            return
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        for index, (kind, item) in enumerate(zip(kinds, value, strict=True)):
            yield from (p.under(index) for p in value_problems(kind, item, described))
    elif annotation is Any:
        return
    elif origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            yield Problem((), f"{shown(value)} is not a table", "write { key = value }")
    elif annotation in (int, float):
        wanted = (int,) if annotation is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            yield Problem((), f"{shown(value)} is not {describe_type(annotation)}")
        elif isinstance(value, int) and value.bit_length() > 63:
            yield Problem((), f"{shown(value)} does not fit into 64 bits")
        elif not math.isfinite(value) and not (described.infinite and value == math.inf):
            yield Problem((), f"{value} is not finite{' or inf' if described.infinite else ''}")
        elif not described.allows(value):
            yield Problem(
                (), f"{shown(value)} is out of range", f"write a value {described.bounds}"
            )
    elif annotation in (str, bool):
        if not isinstance(value, annotation):
            quotable = annotation is str and not isinstance(value, (list, tuple, dict))
            hint = f'write "{shown(value)}"' if quotable else ""
            yield Problem((), f"{shown(value)} is not {describe_type(annotation)}", hint)
    elif isinstance(annotation, type) and not isinstance(value, annotation):
        yield Problem((), f"{shown(value)} is not a {annotation.__name__.lower()}")


def describe_type(annotation: Any) -> str:
    """Return an annotation in words that a recipe's author knows."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        ref = next((a for a in args[1:] if isinstance(a, Ref)), None)
        return f"the id of a stage that leaves {ref.output}" if ref else describe_type(args[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else describe_type(a) for a in args)
    if origin is Literal:
        return " or ".join(shown(a) for a in args)
    if origin is tuple:
        inner = describe_type(args[0]) if args else "values"
        return f"a list of {inner}" if args[-1:] == (Ellipsis,) else f"{len(args)} values"
    if origin in (dict, Mapping):
        return "a table"
    plain = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
    if annotation in plain:
        return plain[annotation]
    return f"a {annotation.__name__.lower()}" if isinstance(annotation, type) else str(annotation)


def toml_value(value: Any) -> str:
    """Return a value as TOML writes it on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return str(value)


def toml_key(part: str | int) -> str:
    """Return one part of a key as TOML writes it, quoted where it must be."""
    return str(part) if re.fullmatch(r"[A-Za-z0-9_-]+", str(part)) else toml_value(str(part))


def shown(value: Any) -> str:
    """Return a value for a message: as TOML, cut where it is long."""
    text = toml_value(_head(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _head(value: Any) -> Any:
    """Return as much of a value as a message can show: a recipe may hold a very long one."""
    if isinstance(value, str):
        return value[:60]
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        return {k: _head(v) for k, v in itertools.islice(value.items(), 30)}
    return [_head(v) for v in value[:30]] if isinstance(value, (list, tuple)) else value
