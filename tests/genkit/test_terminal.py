"""Lines of a terminal end at spaces."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from genkit.terminal import fit

TEXT = (
    "Error: 1 mistake in the recipe:\n"
    "  a.toml:3: samples: write samples.schedule.steps=5 or scores.metrics.1.schedule.steps=5"
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("columns", [20, 40, 60, 80])
def test_no_word_of_a_message_is_broken(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    text = fit(TEXT, Terminal())
    assert text.split() == TEXT.split()
    for line in text.splitlines():
        assert len(line) <= columns or len(line.split()) == 1
    if columns < 80:
        assert "\n    " in text  # of one mistake, further in than its first line


def test_what_is_no_terminal_gets_lines_as_they_are(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert fit(TEXT, io.StringIO()) == TEXT


@pytest.mark.skipif(sys.platform == "win32", reason="there are no terminals of POSIX")
def test_errors_of_a_command_fit_its_terminal(tmp_path):
    (tmp_path / "a.toml").write_text('name = "a"\n\n[[stage]]\nid = "samples"\nuse = "samplo"\n')
    terminal, own = os.openpty()
    command = [sys.executable, "-m", "genkit", "validate", "a.toml"]
    environment = {**os.environ, "COLUMNS": "40"}
    process = subprocess.Popen(command, stderr=own, cwd=tmp_path, env=environment)
    os.close(own)
    shown = b""
    while b"[unknown-component]" not in shown and (part := os.read(terminal, 4096)):
        shown += part
    assert process.wait(timeout=60) == 2
    os.close(terminal)
    lines = shown.decode().splitlines()
    assert len(lines) > 3
    assert all(len(line) <= 40 or len(line.split()) == 1 for line in lines)
