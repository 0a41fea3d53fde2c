"""Contract tests for every kind of component.

A test of a plugin is one line, with or without pytest::

    from genkit.testing import check_coupler

    def test_laws():
        check_coupler(Greedy())

Each check raises :class:`LawBroken` with the component, the law, and the observation that
contradicts it. The laws are the contracts of :mod:`genkit.interfaces`; a component that satisfies
them works in every recipe.
"""

from __future__ import annotations

from genkit.testing.binding import check_extractor, check_guidance, check_metric, subject_of
from genkit.testing.components import check_component
from genkit.testing.coupling import check_coupler
from genkit.testing.data import check_augmentation, check_dataset
from genkit.testing.extremes import check_settings
from genkit.testing.importing import check_importer
from genkit.testing.laws import LawBroken
from genkit.testing.networks import (
    check_classifier,
    check_denoiser,
    check_discriminator,
    check_noise_distribution,
    check_objective,
    check_preconditioner,
)
from genkit.testing.observing import check_callback
from genkit.testing.optimizing import check_average, check_optimizer
from genkit.testing.running import check_stage, check_tracker
from genkit.testing.sampling import (
    ClosedForm,
    check_evaluations,
    check_latents,
    check_schedule,
    check_solver,
)

__all__ = [
    "ClosedForm",
    "LawBroken",
    "check_augmentation",
    "check_average",
    "check_callback",
    "check_classifier",
    "check_component",
    "check_coupler",
    "check_dataset",
    "check_denoiser",
    "check_discriminator",
    "check_evaluations",
    "check_extractor",
    "check_guidance",
    "check_importer",
    "check_latents",
    "check_metric",
    "check_noise_distribution",
    "check_objective",
    "check_optimizer",
    "check_preconditioner",
    "check_schedule",
    "check_settings",
    "check_solver",
    "check_stage",
    "check_tracker",
    "subject_of",
]
