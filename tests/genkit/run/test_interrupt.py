"""Ctrl-C: the first asks, the second stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from genkit.run.interrupt import stop_on_signal
from genkit.world import World

pytestmark = pytest.mark.slow

posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
SIGNALS = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@pytest.fixture(autouse=True)
def _signals_as_in_a_terminal():
    """Signals as a terminal sends them: the tests may run under nohup, which ignores SIGHUP."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in SIGNALS[1:]}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
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


@posix
def test_a_second_hangup_lets_the_run_save():
    with stop_on_signal() as asked:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked()


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
    assert bool(capfd.readouterr().err) == spoken


@posix
def test_a_process_that_ignores_hangups_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_on_signal() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not asked()
    finally:
        signal.signal(signal.SIGHUP, before)


TRAINING = """
import fcntl, pathlib, signal, sys, termios
from genkit.run.interrupt import stop_on_signal
from genkit.run.progress import choose_progress

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
with stop_on_signal() as asked, choose_progress() as progress:
    progress.begin(1, 1, "denoiser", "train")
    done = 0
    while not asked():
        progress.advance(done, 10**9, "images")
        done += 1
    progress.advance(done, done, "images")
    progress.note("a line to a terminal that is gone")
    progress.end()
    print("result")
    sys.stdout.flush()
    pathlib.Path(sys.argv[1]).touch()
"""


def training_in_a_terminal(folder):
    """Return a terminal, the process of a training in it, and the file that it writes last."""
    terminal, own = os.openpty()
    saved = folder / "saved"
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), own)
    command = [sys.executable, "-c", TRAINING, saved]
    process = subprocess.Popen(command, **streams, start_new_session=True)
    os.close(own)
    return terminal, process, saved


@posix
def test_a_run_whose_terminal_is_closed_saves(tmp_path):
    terminal, process, saved = training_in_a_terminal(tmp_path)
    assert os.read(terminal, 1)  # the first line is shown
    os.close(terminal)
    assert process.wait(timeout=300) == 0
    assert saved.exists()


@posix
def test_a_hangup_that_is_sent_by_hand_leaves_the_output(tmp_path):
    terminal, process, _ = training_in_a_terminal(tmp_path)
    shown = os.read(terminal, 4096)  # the handlers are set
    process.send_signal(signal.SIGHUP)
    while b"result" not in shown:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # as Linux reports that all others closed the terminal
            break
        if not part:
            break
        shown += part
    assert process.wait(timeout=300) == 0
    os.close(terminal)
    assert b"result" in shown
