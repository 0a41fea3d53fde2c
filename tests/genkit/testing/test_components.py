"""Each law is broken here once, by a component that is sound but for that."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from genkit.independent import Random
from genkit.settings import setting
from genkit.testing import check_component
from raising import breaks


class Undecorated(Random):
    """Described."""

    strength: int = setting(1, doc="of it")


@dataclass(frozen=True, kw_only=True)
class Undescribed(Random):
    strength: int = setting(1, doc="of it")


@dataclass(frozen=True, kw_only=True)
class Undocumented(Random):
    """Described."""

    strength: int = 1


@dataclass(frozen=True)
class Positional(Random):
    """Described."""

    strength: int = setting(1, doc="of it")


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (Undecorated, "is-decorated"),
        (Undescribed, "is-described"),
        (Undocumented, "setting-is-described; strength"),
        (Positional, "by-keyword"),
    ],
)
def test_components(broken, law):
    check_component(Random)
    with breaks(law):
        check_component(broken)
