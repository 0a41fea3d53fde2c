"""Check of the class indices that were read from files."""

from __future__ import annotations

from torch import Tensor

from genkit.errors import Code, DataError

# A network has weights for each class. Without this limit, a corrupt index allocates billions.
_MAX_CLASSES = 1_000_000


def require_classes(labels: Tensor, where: str) -> None:
    """Raise DataError unless all labels ``[N]`` int64 are from 0 to 999,999."""
    invalid = (labels < 0) | (labels >= _MAX_CLASSES)
    if bool(invalid.any()):
        index = int(invalid.nonzero()[0])
        raise DataError(
            f"{where}: the class of image {index} must be from 0 to {_MAX_CLASSES - 1:,}, got "
            f"{int(labels[index])}",
            Code.OUT_OF_RANGE,
        )
