"""The commands and the code that the pages show for reading runs work."""

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


def test_the_code_of_the_reference_works(runs):
    text = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    names = {}
    exec(code, names)  # noqa: S102, the page is ours
    assert [row["schedule.steps"] for row in names["rows"]] == [2, 3, 4]
