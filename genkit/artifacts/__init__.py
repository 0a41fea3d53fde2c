"""Define the artifacts that stages write and later stages read.

An artifact is stored in one file in the folder of its stage, and has the methods ``save`` and
``load``. Plugins define their own as subclasses of :class:`~genkit.artifacts.artifact.Artifact`. To
read a whole run, use :class:`~genkit.artifacts.runs.Run`.
"""

from __future__ import annotations

from typing import Annotated

from genkit.artifacts.artifact import Artifact
from genkit.artifacts.cost import SamplingCost, SamplingCosts
from genkit.artifacts.coupling import Coupling, CouplingStatistics
from genkit.artifacts.network import (
    ClassifierFile,
    DenoiserFile,
    DiscriminatorFile,
    NetworkFile,
)
from genkit.artifacts.record import Record
from genkit.artifacts.runs import Run, StageResult
from genkit.artifacts.samples import Samples
from genkit.artifacts.scores import Scores
from genkit.settings import Ref
from genkit.tensors import load as load_tensors
from genkit.tensors import save as save_tensors

DenoiserRef = Annotated[str, Ref(DenoiserFile)]
"""Id of an earlier stage that writes a denoiser."""
DiscriminatorRef = Annotated[str, Ref(DiscriminatorFile)]
"""Id of an earlier stage that writes a discriminator."""
ClassifierRef = Annotated[str, Ref(ClassifierFile)]
"""Id of an earlier stage that writes a classifier."""
SamplesRef = Annotated[str, Ref(Samples)]
"""Id of an earlier stage that writes samples."""
ScoresRef = Annotated[str, Ref(Scores)]
"""Id of an earlier stage that writes scores."""

__all__ = [
    "Artifact",
    "ClassifierFile",
    "ClassifierRef",
    "Coupling",
    "CouplingStatistics",
    "DenoiserFile",
    "DenoiserRef",
    "DiscriminatorFile",
    "DiscriminatorRef",
    "NetworkFile",
    "Record",
    "Run",
    "Samples",
    "SamplesRef",
    "SamplingCost",
    "SamplingCosts",
    "Scores",
    "ScoresRef",
    "StageResult",
    "load_tensors",
    "save_tensors",
]
