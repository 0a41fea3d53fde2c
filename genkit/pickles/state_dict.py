"""Read state dictionaries in files of ``torch.save`` as arrays, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from genkit.errors import Code, DataError
from genkit.files import require_regular
from genkit.pickles.reader import read_pickle
from genkit.pickles.records import describe, mapping
from genkit.pickles.torch_storage import TensorReader, is_torch
from genkit.pickles.torch_zip import TorchZip


def read_state_dict(path: Path) -> dict[str, NDArray[Any]]:
    """Return a dict from name to tensor from a file of ``torch.save`` of PyTorch 1.6 or later.

    Raises:
        DataError: the file is missing, damaged, or does not contain a state dictionary.
    """
    require_regular(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", Code.IO_ERROR
        ) from error
    if not content.startswith(TorchZip.BEGINNING):
        raise DataError(
            f"{path} must be a torch.save file of PyTorch 1.6 or later, got a different format; "
            "load it with torch.load and save it again",
            Code.WRONG_KIND,
        )
    stored = TorchZip(content, str(path))
    reader = TensorReader(stored.storage, most_bytes=2 * len(content))
    try:
        items = mapping(read_pickle(stored.pickle(), what=str(path), expected=is_torch))
    except DataError as error:
        raise DataError(f"{path} must be a state dictionary: {error}", error.code) from error
    tensors: dict[str, NDArray[Any]] = {}
    for name, node in items.items():
        if not isinstance(name, str):
            raise DataError(
                f"{path}: the names of tensors must be strings, got {describe(name)}",
                Code.INVALID_NAME,
            )
        try:
            tensors[name] = reader.read(node)
        except DataError as error:
            raise DataError(f"{path}: {name[:200]}: {error}", error.code) from error
    return tensors
