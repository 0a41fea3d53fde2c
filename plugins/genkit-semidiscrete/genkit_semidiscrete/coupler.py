"""The coupler ``semidiscrete``, which assigns noise samples to images of the whole data set."""

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
from genkit_semidiscrete.potential import By, Potential, flatten_images
from genkit_semidiscrete.search import search
from genkit_semidiscrete.stage import FitPotential

PotentialRef = Annotated[str, Ref(Potential)]


@dataclass(frozen=True, kw_only=True)
class Semidiscrete(DatasetCoupler):
    """Assigns each noise sample to an image of the whole data set, using a fitted potential.

    The potential ensures that images are chosen equally often, up to the error of the fit. With
    ``by = ["label"]`` each noise sample first gets a random class, with the frequency of the class
    in the data, and then an image of that class.
    """

    source = "Flow Matching with Semidiscrete Couplings, arXiv 2509.25519, section 3"
    preserves_score = True  # because the image is constant within a cell of noise

    potential: PotentialRef = setting(doc="stage that fitted the potential")
    by: tuple[By, ...] = setting(
        (),
        doc='attributes of the groups, as in that stage: ["label"] to choose within a random class',
    )

    @property
    def preserves_conditional_prior(self) -> frozenset[str]:
        return frozenset({"labels"} if self.by else ())

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"labels"} if self.by else ())

    def check(self, earlier: Stages) -> Iterator[Problem]:
        stage = earlier.get(self.potential)
        # Potentials from other kinds of stages are checked when they are read.
        if isinstance(stage, FitPotential) and stage.by != self.by:
            yield Problem(
                ("by",),
                f'must be {quote(stage.by)} as in stage "{self.potential}", got {quote(self.by)}',
                f"write by = {quote(stage.by)}",
            )

    def bind(self, inputs: Inputs) -> BoundSemidiscrete:
        potential = inputs.read(self.potential, Potential)
        if potential.by != self.by:
            raise DataError(
                f"by must be {quote(potential.by)} as in stage {quote(self.potential)}, got "
                f"{quote(self.by)}; write by = {quote(potential.by)}",
                Code.CONFLICT,
            )
        return BoundSemidiscrete(potential)


@dataclass(frozen=True)
class BoundSemidiscrete:
    """The coupler with its potential loaded.

    Attributes:
        potential: potential of an earlier stage.
    """

    potential: Potential

    def choose(self, data: Batch, noise: Tensor, generator: torch.Generator) -> Tensor:
        """Choose an image for each noise sample, see :meth:`DatasetCoupler.choose`."""
        self.potential.require(data)
        require_one_shape(data.data, noise)
        require_finite(noise, "noise")
        points, samples = flatten_images(data.data), flatten_images(noise)
        images = self.potential.images
        # Groups are drawn independently of the noise, so the noise stays N(0, I) given the group.
        groups = images.part[torch.randint(len(images), (len(noise),), generator=generator)]
        index = torch.empty(len(noise), dtype=torch.int64)
        for value, members in images.parts():
            own = (groups == value).nonzero()[:, 0]
            if len(own) == 0:
                continue
            whole = len(members) == len(images)  # avoids a copy of the data set
            candidates = points if whole else points[members.to(points.device)]
            potential = self.potential.values[members].to(points.device)
            best, _ = search(candidates, potential, samples[own.to(samples.device)])
            index[own] = members[best.cpu()]
        return images.any_twin(index, generator)
