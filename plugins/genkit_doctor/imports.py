"""Import the components of a plugin in another process, where no fault can damage the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout

from genkit.errors import PluginError
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import in_words

SECONDS = 60.0
"""Time limit in seconds to import all components of a plugin. Chosen: PyTorch takes 2 s to 10 s."""


def failed_imports(plugin: str) -> Mapping[str, str]:
    """Return the components of a plugin that cannot be imported, each with the reason.

    If the process ended between two imports, the plugin itself is returned with the reason.

    Args:
        plugin: name of the plugin, which must be loaded.
    """
    failed: dict[str, str] = {}
    whole = f'plugin "{plugin}"'
    begun = 0
    while True:  # once more after each component that ended the process
        output, end = _call(plugin, begun)
        current = whole
        for line in output.splitlines():
            component, reason = json.loads(line)
            current = component if reason is None else whole
            begun += reason is None
            if reason:
                failed[component] = reason
        if current:
            failed[current] = f"{current} {end}"
        if current in ("", whole):
            return failed


def _call(plugin: str, skipped: int) -> tuple[str, str]:
    """Call :func:`serve` in a new process; return its output, and how it ended in words."""
    path = [str(place) for place in sys.path]
    call = f"from {__name__} import serve; serve({plugin!r}, {skipped})"
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}; {call}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False
        )
        output, end = done.stdout, f"ended the process with exit code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, end = error.stdout or b"", f"was not imported within {SECONDS:.0f} s"
    return output.decode("utf-8", "replace"), end


def serve(plugin: str, skipped: int) -> None:
    """Import the components of a plugin after the first ``skipped``, and print two lines for each.

    Each line is a JSON array of the component and null before the import; and of the component and
    the reason why it cannot be imported, empty if it can, after the import. The last line has an
    empty name and null.
    """
    registry = load_plugins().registry
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # the component may print, or write to the descriptor
    with answer, redirect_stdout(sys.stderr):
        own = [entry for entry in registry.entries() if entry.owner.plugin == plugin]
        for entry in own[skipped:]:
            name = f'{entry.kind} "{entry.name}"'
            print(json.dumps([name, None]), file=answer, flush=True)
            reason = ""
            try:
                registry.load(entry)
            except PluginError as error:
                reason = str(error)
            except BaseException as error:  # noqa: BLE001  (third-party code)
                reason = f"{name} cannot be loaded: {in_words(error)}"
            print(json.dumps([name, reason]), file=answer, flush=True)
        print(json.dumps(["", None]), file=answer, flush=True)
