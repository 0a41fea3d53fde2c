"""Contract tests of every component, on which ``genkit show`` and the reference pages rely."""

from __future__ import annotations

import dataclasses

from genkit.interfaces import Component
from genkit.settings import setting_of
from genkit.testing.laws import require


def check_component(cls: type[Component]) -> None:
    """Check the laws for the class of a component of any kind.

    Raises:
        LawBroken: it is no dataclass with keyword fields, or lacks a docstring, or a field lacks
            its ``doc``. (Python requires that it is frozen, since its base is.)
    """
    # Without the decorator, fields that the class itself declares would not be settings.
    decorated = "__dataclass_params__" in vars(cls) or "__annotations__" not in vars(cls)
    law = "is-decorated: it is decorated with @dataclass(frozen=True, kw_only=True)"
    require(decorated, cls, law, "fields without the decorator")
    written = cls.__doc__ or ""
    generated = written.startswith(f"{cls.__name__}(")  # dataclass writes a missing docstring
    law = "is-described: its docstring's first line describes it"
    require(bool(written.strip()) and not generated, cls, law, repr(written[:60]))
    for field in dataclasses.fields(cls):
        require(field.kw_only is True, cls, "by-keyword: every field is", field.name)
        law = "setting-is-described: every field has a description: setting(..., doc=...)"
        require(bool(setting_of(field).doc), cls, law, field.name)
