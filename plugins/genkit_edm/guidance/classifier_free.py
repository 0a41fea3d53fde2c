"""Classifier-free guidance: guidance by the same denoiser without labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from genkit.errors import Code, Problem
from genkit.interfaces import Denoiser, Design, Guidance, Inputs, Trained
from genkit.settings import setting
from genkit_edm.guidance.extrapolation import Extrapolation


@dataclass(frozen=True, kw_only=True)
class ClassifierFree(Guidance):
    """Moves the conditional denoised image away from the unconditional one.

    The denoiser must be trained with ``label_dropout`` above 0, and is called a second time without
    labels. Samples then match their class better, but are less diverse.
    """

    source = "Classifier-free guidance, arXiv 2207.12598; its interval, arXiv 2404.07724"

    weight: float = setting(
        1.0,
        doc="weight w in D(class) + w (D(class) - D(no class)); 0: no guidance. The weight of EDM2 "
        "and Stable Diffusion is w + 1",
        at_least=0.0,
    )

    def check_guided(self, denoiser: Design, networks: Mapping[str, Design]) -> Iterator[Problem]:
        network = denoiser.settings
        if not denoiser.classes:
            yield Problem(
                (),
                "requires a class-conditional denoiser, got one without classes",
                "write class_conditional = true and label_dropout = 0.1 in its network",
                Code.CONFLICT,
            )
        elif not (isinstance(network, Denoiser) and network.label_dropout):
            yield Problem(
                (),
                "requires a denoiser trained with label dropout, got label_dropout = 0",
                "write label_dropout = 0.1 in its network",
                Code.CONFLICT,
            )

    def bind(self, inputs: Inputs, denoiser: Trained) -> Extrapolation:
        return Extrapolation(lambda x, sigma, _: denoiser.module(x, sigma, None), self.weight)
