from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SERVER = """
import json, os, sys
import torch._dynamo  # here, and not in every process by DistributedDataParallel
import genkit_stages.train  # and with it all that trains

for line in sys.stdin:
    code, processes, arguments, out = json.loads(line)
    children = []
    for environment in processes:
        children.append(os.fork())
        if children[-1] == 0:
            status = 1
            try:
                os.environ |= environment
                path = f"{out}.{environment['RANK']}"
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), sys.stdout.fileno())
                exec(code)
                sys.stdout.flush()
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
"""


class Processes:
    """Starts processes as torchrun does, without importing torch for each."""

    def __init__(self, folder):
        self._folder = folder
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # A process of one thread can be forked.
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )

    def __call__(self, code, size, *arguments):
        """Run code in a number of processes; return what each of them printed, as JSON.

        Args:
            code: of a module that finds what follows as ``arguments``.
            size: number of processes.
            *arguments: what JSON can hold.
        """
        self._count += 1
        out = self._folder / str(self._count)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
        ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank % 2)} for rank in range(size)]
        world = [{"WORLD_SIZE": str(size), **where, **rank} for rank in ranks]
        self._server.stdin.write(json.dumps([code, world, arguments, str(out)]) + "\n")
        self._server.stdin.flush()
        assert json.loads(self._server.stdout.readline()) == [0] * size
        return [json.loads(Path(f"{out}.{rank}").read_text()) for rank in range(size)]

    def close(self):
        self._server.communicate(timeout=60)


@pytest.fixture(scope="session")
def processes(tmp_path_factory):
    started = Processes(tmp_path_factory.mktemp("processes"))
    yield started
    started.close()
