"""Process that reads an untrusted file for ``genkit import``.

``python -m genkit_files.import_worker IMPORTER FILE FOLDER``, where IMPORTER is the table of a
component as JSON, writes a description of the network and its weights to FOLDER.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genkit.errors import Code, GenkitError, PluginError
from genkit.files import write_json

if TYPE_CHECKING:
    from genkit.interfaces import Importer
    from genkit.plugin.registry import Registry

FOUND = "found.json"
NETWORK = "network.safetensors"

_LEAST_MEMORY = 512 * 2**20
_TIMES_THE_FILE = 8  # the file, its parts, the arrays, their copies and the file that is written


def main(arguments: Sequence[str]) -> None:
    """Read the file with as much memory as one of its size may take."""
    table, file, folder = json.loads(arguments[0]), Path(arguments[1]), Path(arguments[2])

    from genkit.blame import plugin_errors
    from genkit.interfaces import Importer
    from genkit.plugin.manager import load_plugins
    from genkit.recipe import decode

    registry = load_plugins().registry
    allowed = _LEAST_MEMORY + _TIMES_THE_FILE * file.stat().st_size
    try:
        with plugin_errors(registry):
            importer = decode.component(registry, "importer", table)
            if not isinstance(importer, Importer):
                raise TypeError(f"{table} is no importer")
            limit_memory(allowed)
            found = _read(importer, registry, file, folder)
    except GenkitError as error:
        found = {"error": str(error), "code": error.code.name}
        found["of_plugin"] = isinstance(error, PluginError)
        found["traceback"] = "".join(traceback.format_exception(error))
    except MemoryError:
        reason = f"{file} takes more than {allowed >> 20} MiB of memory to read"
        found = {"error": reason, "code": Code.OUT_OF_MEMORY.name}
    write_json(folder / FOUND, found)


def _read(importer: Importer, registry: Registry, file: Path, folder: Path) -> dict[str, object]:
    """Write the network; return what a user should know of it."""
    from genkit.blame import require_type
    from genkit.interfaces import Imported
    from genkit.recipe import encode

    imported = require_type(importer, "read", importer.read(file), Imported)
    network = imported.network.output(
        table=encode.table(registry, imported.network),
        spec=imported.spec,
        weights=imported.weights,
        images=imported.images,
        ema_length=imported.ema_length,
    )
    network.save(folder / NETWORK)
    return {"notes": imported.notes}


def limit_memory(more: int) -> None:
    """Let this process take at most so many bytes on top of what it has, on Linux.

    Other systems do not tell how much a process has, or do not hold it to a limit.
    """
    from genkit.machine import resident

    held = resident("VmSize")
    if held is None or sys.platform == "win32":
        return
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_AS)
    allowed = held + more if most == resource.RLIM_INFINITY else min(held + more, most)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))


if __name__ == "__main__":
    main(sys.argv[1:])
