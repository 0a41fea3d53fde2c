"""Ctrl-C: the first asks, the second stops."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from genkit.run.interrupt import stop_on_signal
from genkit.world import World


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop(number):
    before = signal.getsignal(number)
    with stop_on_signal() as stop_requested:
        assert not stop_requested()
        os.kill(os.getpid(), number)
        assert stop_requested()
    assert signal.getsignal(number) is before


def test_a_second_signal_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signal():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_thread_sets_no_handlers_and_is_never_asked():
    found = []

    def work():
        with stop_on_signal() as stop_requested:
            found.append((stop_requested(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGINT))]


@pytest.mark.parametrize(
    ("world", "number", "spoken"),
    [
        (World(), signal.SIGTERM, True),
        (World(0, 2), signal.SIGINT, True),
        (World(0, 2), signal.SIGTERM, False),  # as torchrun ends a run, having said why
        (World(1, 2), signal.SIGINT, False),
    ],
)
def test_one_process_answers_to_ctrl_c(capfd, world, number, spoken):
    with stop_on_signal(world) as asked:
        os.kill(os.getpid(), number)
        assert asked()
    assert ("stopping and saving" in capfd.readouterr().err) == spoken
