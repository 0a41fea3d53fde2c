"""Contract tests of component classes, on which ``genkit show`` and the reference pages rely."""

from __future__ import annotations

import dataclasses

from genkit.interfaces import Component
from genkit.settings import setting_of
from genkit.testing.laws import require


def check_component(cls: type[Component]) -> None:
    """Check the laws that every component class must satisfy.

    That the dataclass is frozen is not checked: subclasses of a frozen dataclass must be frozen.

    Raises:
        LawBroken: the class is not a dataclass with keyword-only fields, has no docstring, or has a
            field without ``doc``.
    """
    # Without the decorator, fields that the class itself declares would not be settings.
    decorated = "__dataclass_params__" in vars(cls) or "__annotations__" not in vars(cls)
    law = "is-decorated: the class is decorated with @dataclass(frozen=True, kw_only=True)"
    require(decorated, cls, law, "fields without the decorator")
    docstring = cls.__doc__ or ""
    is_generated = docstring.startswith(f"{cls.__name__}(")  # by dataclass, if there is none
    law = "is-described: the class has a docstring whose first line describes it"
    require(bool(docstring.strip()) and not is_generated, cls, law, repr(docstring[:60]))
    for field in dataclasses.fields(cls):
        require(field.kw_only is True, cls, "by-keyword: every field is keyword-only", field.name)
        law = "setting-is-described: every field has a description, setting(..., doc=...)"
        require(bool(setting_of(field).doc), cls, law, field.name)
