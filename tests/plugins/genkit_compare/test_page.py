"""The commands that the page on comparing runs shows work."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_commands_of_the_guide_work(genkit_, runs):
    text = (DOCS / "how-to" / "compare-runs.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ genkit (.+)$", text, re.MULTILINE)
    assert {command.split()[0] for command in commands} == {"runs", "compare"}
    for command in commands:
        code, _, err = genkit_(*shlex.split(command))
        assert code == 0, (command, err)
    written = {path.name for path in runs.parent.iterdir()}
    assert {"scores.csv", "scores.json", "fid.png"} <= written
