"""Read an untrusted file for ``genkit import``, in a separate process.

``python -m genkit_files.import_worker IMPORTER FILE FOLDER`` writes a network file with the weights
to FOLDER. IMPORTER is the table of an importer as JSON.
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

RESULT = "result.json"
NETWORK = "network.safetensors"

_MIN_MEMORY = 512 * 2**20  # minimum limit in bytes; chosen, not tuned
# Additional memory for each byte of the file: for the file, its parts, the arrays, their copies and
# the output.
_MEMORY_PER_BYTE = 8


def main(arguments: Sequence[str]) -> None:
    """Read the file with limited memory, and write the network or the error to the folder."""
    table, file, folder = json.loads(arguments[0]), Path(arguments[1]), Path(arguments[2])

    from genkit.blame import plugin_errors
    from genkit.interfaces import Importer
    from genkit.plugin.manager import load_plugins
    from genkit.recipe import decode

    registry = load_plugins().registry
    limit = _MIN_MEMORY + _MEMORY_PER_BYTE * file.stat().st_size
    try:
        with plugin_errors(registry):
            importer = decode.component(registry, "importer", table)
            if not isinstance(importer, Importer):
                raise TypeError(f"{table} is not an importer")
            limit_memory(limit)
            result = _read(importer, registry, file, folder)
    except GenkitError as error:
        result = {"error": str(error), "code": error.code.name}
        result["of_plugin"] = isinstance(error, PluginError)
        result["traceback"] = "".join(traceback.format_exception(error))
    except MemoryError:
        reason = f"{file} takes more than {limit >> 20} MiB of memory to read"
        result = {"error": reason, "code": Code.OUT_OF_MEMORY.name}
    write_json(folder / RESULT, result)


def _read(importer: Importer, registry: Registry, file: Path, folder: Path) -> dict[str, object]:
    """Read and write the network; return a dict with the importer's notes for the user."""
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
    """Limit the memory of this process to the current amount plus ``more`` bytes; Linux only.

    Other systems do not report the memory of a process, or do not enforce a limit.
    """
    from genkit.machine import resident

    used = resident("VmSize")
    if used is None or sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used + more if hard == resource.RLIM_INFINITY else min(used + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(sys.argv[1:])
