"""Class indices that come from outside."""

from __future__ import annotations

from torch import Tensor

from genkit.errors import Code, DataError

_MOST = 1_000_000  # a network has a weight for each class: a wrong index must not ask for billions


def require_classes(labels: Tensor, where: str) -> None:
    """Raise DataError where an index, of ``[N]`` int64, can be no class."""
    wrong = (labels < 0) | (labels >= _MOST)
    if bool(wrong.any()):
        index = int(wrong.nonzero()[0])
        raise DataError(
            f"{where}: the class of image {index} is {int(labels[index])}; classes are 0 to "
            f"{_MOST - 1:,}",
            Code.OUT_OF_RANGE,
        )
