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
"""Number of lengths to which the file is truncated, and of positions at which a byte is changed."""


def check_importer(importer: Importer, file: Path) -> None:
    """Check every law of an importer.

    The importer returns a network and weights that fit it, the same on every call. For a file that
    is missing, empty, truncated or of a different kind, it raises DataError and no other error. A
    file with one changed byte may be read or rejected.

    Args:
        importer: importer to check.
        file: valid file, with its original name, which the importer may read.

    Raises:
        LawBroken: the component violates a law; the error contains the law and the observation.
    """
    content = file.read_bytes()
    with require_pure(importer):
        first, again = (_read(importer, file, "a valid file") for _ in range(2))
    if first is None or again is None:
        raise LawBroken(importer, "reads-sound-file: a valid file is read", "a DataError")
    weights = first.weights
    same = weights.keys() == again.weights.keys() and all(
        torch.equal(t, again.weights[name]) for name, t in weights.items()
    )
    law = "same-again: every read of a file returns the same network and weights"
    require(same and first.network == again.network, importer, law, "different results")
    with seeded(0):
        model = first.network.bind(NoStages()).build(first.spec)
    try:
        require_fit(model, weights)
    except DataError as error:
        raise LawBroken(importer, "weights-fit: the weights fit the network", error) from error
    same = file.read_bytes() == content
    require(same, importer, "leaves-file: the file is not modified", "a modified file")
    g = generator(0, "laws of importers")
    cut = len(content) // DAMAGES
    damaged: dict[str, bytes | None] = {
        f"a file truncated to {k * cut} bytes": content[: k * cut] for k in range(DAMAGES)
    }
    damaged |= {"a file of zeros": bytes(4096), "a text file": b"no network\n"}
    damaged |= {"a missing file": None}
    with TemporaryDirectory() as folder:
        place = Path(folder) / file.name
        for what, instead in damaged.items():
            place.unlink(missing_ok=True) if instead is None else place.write_bytes(instead)
            accepted = _read(importer, place, what) is not None
            require(not accepted, importer, f"refuses-damage: {what} is rejected", "a network")
        for index in torch.randint(len(content), (DAMAGES,), generator=g).tolist():
            changed = bytearray(content)
            changed[index] ^= 255
            place.write_bytes(changed)
            _read(importer, place, f"a file whose byte {index} is changed")


def _read(importer: Importer, place: Path, what: str) -> Imported | None:
    """Return the network and its weights; None if the file is rejected."""
    try:
        return importer.read(place)
    except (DataError, MemoryError):  # genkit import reports either as a DataError
        return None
    except Exception as error:
        seen = f"{type(error).__name__}: {error}"
        law = f"raises-data-error: {what} is read or rejected with a DataError"
        raise LawBroken(importer, law, seen) from error
