"""Components that do not survive extreme settings are found."""

from __future__ import annotations

import time
from dataclasses import dataclass

from genkit.interfaces import Component
from genkit.settings import setting
from genkit.testing import check_settings
from genkit.testing.extremes import MOST_SECONDS
from raising import breaks


@dataclass(frozen=True, kw_only=True)
class Bounded(Component):
    """Divides by a number above 0."""

    number: float = setting(1.0, doc="a number", above=0, at_most=10)

    def check(self, earlier):
        yield from () if 1 / self.number > 0 else []


@dataclass(frozen=True, kw_only=True)
class Unbounded(Bounded):
    """Divides by any number."""

    number: float = setting(1.0, doc="a number")


@dataclass(frozen=True, kw_only=True)
class Slow(Component):
    """Takes longer for a larger number."""

    number: int = setting(1, doc="a number", at_least=0)

    def check(self, earlier):
        clock[0] += self.number
        return iter(())


clock = [0.0]


def test_bounded_settings_are_accepted():
    check_settings(Bounded())


def test_an_error_of_another_kind_is_found():
    with breaks("refuses-extremes; number = 0"):
        check_settings(Unbounded())


def test_a_slow_value_is_found(monkeypatch):
    monkeypatch.setattr(time, "process_time", lambda: clock[0])
    check_settings(Slow(), values=[int(MOST_SECONDS)])
    with breaks("quick; number = 2147483648"):
        check_settings(Slow())


def test_chosen_values_are_tried_instead_of_the_extremes():
    check_settings(Unbounded(), values=[3, -1, "x", None])
    with breaks("refuses-extremes; number = 0"):
        check_settings(Unbounded(), values=[3, 0])
