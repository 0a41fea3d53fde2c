"""Contract tests of importers."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from genkit.errors import DataError
from genkit.interfaces import Imported, Importer
from genkit.networks import require_fit
from genkit.parts.no_stages import NoStages
from genkit.random import generator, seeded
from genkit.testing.laws import LawBroken, require, require_pure

DAMAGES = 24
"""Number of positions at which a file is truncated, and at which a byte is changed."""


def check_importer(importer: Importer, file: Path) -> None:
    """Check every law of an importer.

    It reads weights that fit their network from the file, the same each time. For a file that is
    missing, empty, truncated or of another kind it raises a DataError and no other error. A file
    with one changed byte may be read or rejected.

    Args:
        importer: importer to check.
        file: valid file, with the name that its project gives it.

    Raises:
        LawBroken: with the law, and what was seen.
    """
    content = file.read_bytes()
    with require_pure(importer):
        found, again = (_read(importer, file, "a sound file") for _ in range(2))
    if found is None or again is None:
        raise LawBroken(importer, "reads-sound-file: a sound file is read", "a DataError")
    weights = found.weights
    same = weights.keys() == again.weights.keys() and all(
        torch.equal(t, again.weights[name]) for name, t in weights.items()
    )
    law = "same-again: a file is the same network each time"
    require(same and found.network == again.network, importer, law, "another")
    with seeded(0):
        model = found.network.bind(NoStages()).build(found.spec)
    try:
        require_fit(model, weights)
    except DataError as error:
        raise LawBroken(importer, "weights-fit: weights fit their network", error) from error
    require(file.read_bytes() == content, importer, "leaves-file: it is as it was", "another")
    g = generator(0, "laws of importers")
    cut = len(content) // DAMAGES
    damaged: dict[str, bytes | None] = {
        f"a file of its first {k * cut} bytes": content[: k * cut] for k in range(DAMAGES)
    }
    damaged |= {"zeros": bytes(4096), "text": b"no network\n", "a missing file": None}
    with TemporaryDirectory() as folder:
        place = Path(folder) / file.name
        for what, instead in damaged.items():
            place.unlink(missing_ok=True) if instead is None else place.write_bytes(instead)
            taken = _read(importer, place, what) is not None
            require(not taken, importer, f"refuses-damage: {what} is refused", "a network")
        for index in torch.randint(len(content), (DAMAGES,), generator=g).tolist():
            changed = bytearray(content)
            changed[index] ^= 255
            place.write_bytes(changed)
            _read(importer, place, f"a file whose byte {index} is changed")


def _read(importer: Importer, place: Path, what: str) -> Imported | None:
    """Return the network; None if the file is rejected."""
    try:
        return importer.read(place)
    except (DataError, MemoryError):  # genkit import reports either as a DataError
        return None
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        raise LawBroken(
            importer, f"raises-data-error: {what} is read, or so refused", seen
        ) from error
