"""Laws of every component: what ``genkit show`` and the reference pages rely on."""

from __future__ import annotations

import dataclasses

from genkit.interfaces import Component
from genkit.settings import setting_of
from genkit.testing.laws import require


def check_component(cls: type[Component]) -> None:
    """Check what holds for the class of every component, whatever its kind.

    Raises:
        LawBroken: it is no dataclass with keyword fields, or lacks a docstring, or a field lacks
            its ``doc``. (That it is frozen, Python requires: its base is.)
    """
    # Without the decorator, the fields that the class itself declares would be no settings.
    decorated = "__dataclass_params__" in vars(cls) or "__annotations__" not in vars(cls)
    law = "is-decorated: it is decorated with @dataclass(frozen=True, kw_only=True)"
    require(decorated, cls, law, "fields without the decorator")
    written = cls.__doc__ or ""
    generated = written.startswith(f"{cls.__name__}(")  # what dataclass writes where there is none
    law = "is-described: its docstring's first line describes it"
    require(bool(written.strip()) and not generated, cls, law, repr(written[:60]))
    for field in dataclasses.fields(cls):
        require(field.kw_only is True, cls, "by-keyword: every field is", field.name)
        law = "setting-is-described: every field says what it means: setting(..., doc=...)"
        require(bool(setting_of(field).doc), cls, law, field.name)
