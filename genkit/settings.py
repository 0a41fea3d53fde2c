"""Declare the settings of components, and format their values as TOML."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any

_KEY = "genkit"

MIN_SIGMA, MAX_SIGMA = 1e-9, 1e9
"""Bounds of noise levels: their squares must be representable in float32."""


@dataclass(frozen=True)
class Setting:
    """Meaning and range of a field.

    Attributes:
        doc: meaning, with its unit.
        at_least: inclusive min.
        above: exclusive min.
        at_most: inclusive max.
        below: exclusive max.
        use: table of the default component, such as ``{"use": "heun"}``.
        inherit: top-level key of the recipe that contains the default component.
        unless: key that disables ``inherit`` if it is in the same table as the field.
        infinite: whether ``inf`` is allowed.
        renamed: map from a choice of an earlier version to the present one.
        affects_result: False for a setting that changes neither weights nor samples, such as the
            time between checkpoints. The setting is left out of the fingerprint, with all
            components and references in it.
    """

    doc: str = ""
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    use: Mapping[str, Any] | None = None
    inherit: str = ""
    unless: str = ""
    infinite: bool = False
    renamed: Mapping[str, str] | None = None
    affects_result: bool = True

    @property
    def bounds(self) -> str:
        """Description of the range, such as "at least 1"; an empty string if there is none."""
        return " and ".join(
            f"{name.replace('_', ' ')} {limit:g}" for name, limit, _ in self._limits()
        )

    def allows(self, value: float) -> bool:
        """Return whether a number lies in the range."""
        return all(within(value, limit) for _, limit, within in self._limits())

    def _limits(self) -> Iterator[tuple[str, float, Callable[[float, float], bool]]]:
        for name, within in _LIMITS.items():
            if (limit := getattr(self, name)) is not None:
                yield name, limit, within


_LIMITS = {
    "at_least": operator.ge,
    "above": operator.gt,
    "at_most": operator.le,
    "below": operator.lt,
}


@dataclass(frozen=True)
class Ref:
    """Marks a string as the id of an earlier stage that writes an artifact of a type.

    Used as ``Annotated[str, Ref(TheArtifact)]``; :mod:`genkit.artifacts` defines common types such
    as ``DenoiserRef``.
    """

    artifact: type[Any]


@dataclass(frozen=True)
class PathMark:
    """Marks a string as the path of a file or a folder, as ``FilePath`` does.

    Attributes:
        names: values that are not paths, such as names of files that a plugin contains.
    """

    names: tuple[str, ...] = ()


FilePath = Annotated[str, PathMark()]
"""Type of a setting that is the path of a file or a folder.

A relative path in a recipe is relative to the folder of the recipe if the file exists there, and
to the working directory otherwise. The component receives the resolved path, in which ``~`` is not
expanded; see :func:`genkit.files.expand_user`.
"""


def setting(default: Any = dataclasses.MISSING, *, doc: str, **attributes: Any) -> Any:
    """Declare a field of a component.

    Args:
        default: default value. Without it the field is required, unless ``use`` or ``inherit`` is
            given.
        doc: meaning, with its unit.
        attributes: other attributes of :class:`Setting`.
    """
    metadata = {_KEY: Setting(doc=doc, **attributes)}
    if isinstance(default, (list, dict)):
        kept = default
        return dataclasses.field(default_factory=lambda: kept, metadata=metadata)
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def sigma_setting(default: float, doc: str) -> Any:
    """Declare a noise level above 0, or a standard deviation; see :func:`setting`."""
    return setting(default, doc=doc, at_least=MIN_SIGMA, at_most=MAX_SIGMA)


def setting_of(field: dataclasses.Field[Any]) -> Setting:
    """Return the setting that a field declares."""
    declared: Setting = field.metadata.get(_KEY, Setting())
    return declared


def near_match(wrong: object, known: Iterable[str]) -> str:
    """Return ``did you mean "x"?`` for the closest known name, or an empty string."""
    if not isinstance(wrong, str):
        return ""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""


def toml_value(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # A JSON string is a TOML string, except for DEL.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return str(value)


def toml_key(part: str | int) -> str:
    """Return one part of a key as TOML, quoted if necessary."""
    return str(part) if re.fullmatch(r"[A-Za-z0-9_-]+", str(part)) else toml_value(str(part))


def meant_number(value: Any) -> str:
    """Return the number that the user probably meant by a value, as TOML.

    For example, 2e3 means 2000 where an integer is expected. The strings "2_000" and "2k" mean 2000
    where any number is expected. The result is empty for a value that does not resemble a number.
    """
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    text = value.strip() if isinstance(value, str) else ""
    if re.fullmatch(r"[+-]?[0-9][0-9_]*(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?", text):
        number = float(text)
        return text if "." in text or not number.is_integer() else str(int(number))
    return scaled_number(text)


def scaled_number(text: str) -> str:
    """Return a number with the suffix k or m as TOML, such as 2_000 for "2k".

    The result is empty for any other string.
    """
    match = re.fullmatch(r"([0-9][0-9_]*(?:\.[0-9]+)?)([kKmM])", text)
    if not match:
        return ""
    value = Fraction(match[1].replace("_", "")) * (1000 if match[2] in "kK" else 1_000_000)
    return f"{int(value):_}" if value.denominator == 1 else str(float(value))


def quote(value: Any) -> str:
    """Return a value as TOML for a message, shortened to 60 characters."""
    text = toml_value(_head(value))
    return text if len(text) <= 60 else text[:57] + "..."


def _head(value: Any) -> Any:
    """Return the beginning of a value, so that a very long value is formatted quickly."""
    if isinstance(value, str):
        return value[:60]
    if isinstance(value, int) and value.bit_length() > 200:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, Mapping):
        return {k: _head(v) for k, v in itertools.islice(value.items(), 30)}
    return [_head(v) for v in value[:30]] if isinstance(value, (list, tuple)) else value
