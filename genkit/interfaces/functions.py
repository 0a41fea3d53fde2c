"""Functions that observe training runs, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from genkit.types import Measurement


@dataclass(frozen=True)
class FunctionCallback:
    """A function that a training stage calls, as it calls the components of the kind ``callback``.

    Attributes:
        function: function of the :class:`~genkit.interfaces.TrainingState`, which returns scores by
            name, a :class:`~genkit.types.Measurement` or None.
        images: number of images between two calls; None for a hundredth of the training run.
    """

    function: Callable[[Any], Any]
    images: int | None = None

    @property
    def name(self) -> str:
        """Name of the function, for rows and messages."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    def every(self, total: int) -> int:
        """Return the number of images between two calls in a training run of ``total`` images."""
        return self.images or max(1, total // 100)

    def call(self, training: object) -> object:
        """Return the result of the function; scores without a Measurement become one."""
        result = self.function(training)
        if result is None or isinstance(result, Mapping):
            return Measurement(dict(result or {}))
        return result
