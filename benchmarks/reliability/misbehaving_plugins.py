"""Install plugins that misbehave: the other plugins work, and each culprit is listed by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from runs import Outcome, Tally

from misbehaving import FAULTS, write_plugin

GOOD = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_register(registry):
    registry.add("coupler", "good", "toy:Nothing")
"""

SECONDS = 60
"""Time limit of a command on a busy machine."""


def misbehave(folder: Path) -> Tally:
    """List the plugins twice; the second time, their faults are known."""
    tally = Tally()
    folder.mkdir(parents=True)
    for name, (code, _) in FAULTS.items():
        write_plugin(folder, name, code)
    write_plugin(folder, "the-good", GOOD)
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = os.environ | {
        "PYTHONPATH": path,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "GENKIT_DISABLE_PLUGINS": "",
    }
    for turn in ("first", "second"):
        begin = time.monotonic()
        ended = subprocess.run(
            [sys.executable, "-m", "genkit", "list-plugins", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        tally.counts[f"seconds of the {turn} call"] = round(time.monotonic() - begin)
        outcome = Outcome(ended.returncode, ended.stdout, ended.stderr)
        if not tally.require(ended.returncode == 0, f"{turn} call", outcome):
            continue
        listed = {row["plugin"]: row for row in json.loads(ended.stdout)["plugins"]}
        for name, (_, part) in FAULTS.items():
            row = listed.get(name, {"status": "missing", "reason": ""})
            named = row["status"] == "failed" and part in row["reason"]
            tally.require(named, f"{name}: {row['status']}, {row['reason']}", outcome)
            tally.add("named" if named else "not named")
        works = listed["the-good"]["status"] == "loaded"
        tally.require(works, "the good plugin", outcome)
    return tally
