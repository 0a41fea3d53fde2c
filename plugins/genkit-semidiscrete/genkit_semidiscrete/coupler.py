"""The coupler: each noise finds its image among the whole data set (arXiv 2509.25519)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from genkit.plugin import (
    Batch,
    Code,
    DataError,
    DatasetCoupler,
    Inputs,
    Problem,
    Ref,
    Stages,
    quote,
    require_finite,
    require_one_shape,
    setting,
)
from genkit_semidiscrete.potential import By, Potential, flat
from genkit_semidiscrete.search import search
from genkit_semidiscrete.stage import FitPotential

PotentialRef = Annotated[str, Ref(Potential)]


@dataclass(frozen=True, kw_only=True)
class Semidiscrete(DatasetCoupler):
    """Each noise takes its image of the whole data set, by a potential that was fitted before.

    The potential makes the choice fair: over many noises each image is chosen about equally
    often. With ``by = ["label"]`` a noise is first dealt a class, as often as the class has
    images and whatever the noise is, and finds its image among those of the class.
    """

    source = "Flow Matching with Semidiscrete Couplings, arXiv 2509.25519, section 3"
    preserves_score = True  # the image is constant within a cell of noise

    potential: PotentialRef = setting(doc="stage that fitted the potential")
    by: tuple[By, ...] = setting(
        (), doc='as in that stage: ["label"] for images of the dealt class alone'
    )

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        return frozenset({"labels"} if self.by else ())

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"} if self.by else ())

    def check(self, earlier: Stages) -> Iterator[Problem]:
        stage = earlier.get(self.potential)
        # The potential of another stage is checked when it is read.
        if isinstance(stage, FitPotential) and stage.by != self.by:
            yield Problem(
                ("by",),
                f'{quote(self.by)}, and stage "{self.potential}" fitted by {quote(stage.by)}',
                f"write by = {quote(stage.by)}",
            )

    def bind(self, inputs: Inputs) -> BoundSemidiscrete:
        fitted = inputs.read(self.potential, Potential)
        if fitted.by != self.by:
            raise DataError(
                f"by must be that of the stage {quote(self.potential)}, {quote(fitted.by)}, got "
                f"{quote(self.by)}; write by = {quote(fitted.by)}",
                Code.CONFLICT,
            )
        return BoundSemidiscrete(fitted)


@dataclass(frozen=True)
class BoundSemidiscrete:
    """The coupler with its potential.

    Attributes:
        fitted: potential of an earlier stage.
    """

    fitted: Potential

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise, see :meth:`DatasetCoupler.choose`."""
        self.fitted.require(data)
        require_one_shape(data.data, noise)
        require_finite(noise, "noise")
        points, wanted, images = flat(data.data), flat(noise), self.fitted.images
        # A class is dealt without a look at the noise, so that given the class it is N(0, I).
        dealt = images.part[torch.randint(len(images), (len(noise),), generator=generator)]
        chosen = torch.empty(len(noise), dtype=torch.int64)
        for value, members in images.parts():
            mine = (dealt == value).nonzero()[:, 0]
            if len(mine) == 0:
                continue
            whole = len(members) == len(images)  # and need not be copied
            among = points if whole else points[members.to(points.device)]
            potential = self.fitted.values[members].to(points.device)
            found, _ = search(among, potential, wanted[mine.to(wanted.device)])
            chosen[mine] = members[found.cpu()]
        return images.any_twin(chosen, generator)
