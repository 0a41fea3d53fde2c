from __future__ import annotations

import pytest

from genkit.cli import main


@pytest.fixture
def genkit_(capsys):
    """Call the command line; returns exit code, stdout and stderr."""

    def call(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call
