"""Work ahead of its consumer, and what becomes of it when the consumer stops."""

from __future__ import annotations

import time

import pytest

from genkit.train.ahead import prefetch


@pytest.mark.parametrize("together", [False, True])
def test_what_others_wait_for_is_ended_although_the_caller_stops(together):
    finished = []

    def finish(index, prepared):
        finished.append(prepared.result())

    def prepare(index):
        time.sleep(0.05)
        return index

    items = prefetch(range(100), prepare, finish, 6, together)
    next(items).result()
    items.close()
    begun = time.monotonic()
    while len(finished) < 7 and time.monotonic() < begun + (30 if together else 0.5):
        time.sleep(0.01)
    assert (finished == list(range(7))) == together
