"""Imports of networks in the process of a test, which spares starting another: it takes seconds."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

from genkit_files import import_worker


def run(command, **settings):
    """Read a file as the process of ``command`` would."""
    import_worker.main(command[command.index(import_worker.__name__) + 1 :])
    return SimpleNamespace(stderr=b"", returncode=0)


@contextmanager
def reading_inside():
    """Read the imported files of a block in this process, without a limit of memory."""
    with (
        mock.patch.object(import_worker, "limit_memory"),
        mock.patch("subprocess.run", run),
    ):
        yield
