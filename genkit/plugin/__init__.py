"""Export the public names that authors of plugins use, for all kinds of components.

::

    from genkit.plugin import Coupler, Pairs, hookimpl, pairwise_cost, setting

A name is imported on first use. Every command imports the module ``__init__`` of each plugin, which
should therefore use only ``hookimpl``, ``Registration`` and the errors: these do not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from genkit.plugin.hookspec import hookimpl as hookimpl
from genkit.plugin.registry import Registration as Registration

if TYPE_CHECKING:
    from genkit.artifacts import *  # noqa: F403
    from genkit.costs import *  # noqa: F403
    from genkit.designs import *  # noqa: F403
    from genkit.errors import *  # noqa: F403
    from genkit.fields import *  # noqa: F403
    from genkit.interfaces import *  # noqa: F403
    from genkit.latents import *  # noqa: F403
    from genkit.networks import *  # noqa: F403
    from genkit.parts.frozen import *  # noqa: F403
    from genkit.parts.no_stages import *  # noqa: F403
    from genkit.parts.precision import *  # noqa: F403
    from genkit.random import *  # noqa: F403
    from genkit.sample import *  # noqa: F403
    from genkit.settings import *  # noqa: F403
    from genkit.start import *  # noqa: F403
    from genkit.tensors import *  # noqa: F403
    from genkit.types import *  # noqa: F403
    from genkit.versions import *  # noqa: F403
    from genkit.world import *  # noqa: F403

_NAMES = {
    "genkit.artifacts": "Artifact ClassifierFile ClassifierRef Coupling CouplingStatistics "
    "DenoiserFile DenoiserRef "
    "DiscriminatorFile DiscriminatorRef NetworkFile Record Run Samples SamplesRef SamplingCost "
    "SamplingCosts Scores ScoresRef StageResult load_tensors save_tensors",
    "genkit.costs": "CostMeter",
    "genkit.start": "START_DOC require_start sampling_warnings",
    "genkit.designs": "components design_behind references",
    "genkit.errors": "Code DataError GenkitError InterruptedRun PluginError Problem SettingError "
    "UsageError",
    "genkit.fields": "Settings",
    "genkit.interfaces": "AnyCoupler Augmentation Average BoundCallback BoundCoupler "
    "BoundDatasetCoupler BoundGuidance BoundMetric BoundNetwork BoundObjective BoundTracker "
    "Callback Classifier "
    "Component Context Coupler Dataset DatasetCoupler Denoiser Design Discriminator Extractor "
    "Features FunctionCallback Guidance Imported Importer Inputs Latents Metric Network Objective "
    "Optimizer Preconditioned Preconditioner "
    "RunningAverage Sampler SamplingStage Schedule NoiseDistribution Solver Stage Stages Subject "
    "TrackedRun Tracker Trained TrainingState unbound",
    "genkit.latents": "Derived draws_of",
    "genkit.networks": "bind_guidance",
    "genkit.parts.frozen": "Frozen",
    "genkit.parts.no_stages": "NoStages",
    "genkit.parts.precision": "Precision network_precision",
    "genkit.random": "PerSample derive_seed generator seeded",
    "genkit.sample": "bind_schedule denoise_fn supported_levels resolve_start sample bind_solver "
    "trajectory",
    "genkit.settings": "FilePath PathMark Ref setting sigma_setting quote",
    "genkit.tensors": "Cost as_column to_float to_uint8 file_digest pairwise_cost require_finite "
    "require_one_shape require_same_length",
    "genkit.types": "Batch Coefficients Curve DataSpec Denoise Draws Measurement Pairs RandnLike "
    "RemoteFile ResolvedStart Start State",
    "genkit.versions": "versions_of",
    "genkit.world": "World",
}
"""Map from a module to the public names that it defines, separated by spaces."""

_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


if not TYPE_CHECKING:  # otherwise a type checker would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'genkit.plugin' has no attribute {name!r}")
        return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*_HOME, "Registration", "hookimpl"]
