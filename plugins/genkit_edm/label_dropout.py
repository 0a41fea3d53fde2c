"""Base of denoisers whose class can be hidden in training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genkit.errors import Problem
from genkit.interfaces import Denoiser, Stages
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class LabelDropout(Denoiser):
    """A denoiser whose class embedding can be dropped, as for classifier-free guidance."""

    label_dropout: float = setting(
        0.0,
        doc="probability that an item's class is hidden in training; above 0, the network can "
        "also be called without a class",
        at_least=0,
        below=1,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.label_dropout and not self.class_conditional:
            yield Problem(
                ("label_dropout",),
                "an unconditional network is given no classes to hide",
                "write class_conditional = true, or label_dropout = 0.0",
            )
