"""Base class of denoisers that can be trained with label dropout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from genkit.errors import Problem
from genkit.interfaces import Denoiser, Stages
from genkit.settings import setting


@dataclass(frozen=True, kw_only=True)
class LabelDropout(Denoiser):
    """A denoiser with label dropout, as required by classifier-free guidance."""

    label_dropout: float = setting(
        0.0,
        doc="probability that an item's label is dropped in training; if it is above 0, the "
        "network can also be called without labels",
        at_least=0,
        below=1,
    )

    def check(self, earlier: Stages) -> Iterator[Problem]:
        if self.label_dropout and not self.class_conditional:
            yield Problem(
                ("label_dropout",),
                f"must be 0 for an unconditional network, got {self.label_dropout:g}",
                "write class_conditional = true, or label_dropout = 0.0",
            )
