from __future__ import annotations

import threading

import pytest

from genkit_bench.worker import Worker


def test_calls_are_made_in_one_other_thread():
    worker = Worker()
    threads = {worker.call(threading.get_ident) for _ in range(3)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_an_error_reaches_the_caller_and_the_thread_goes_on():
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        worker.call(lambda: 1 // 0)
    with pytest.raises(SystemExit):
        worker.call(lambda: exit(3))
    assert worker.call(lambda: 7) == 7
