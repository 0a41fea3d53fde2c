"""Define the kinds of components with their base classes, and the names of genkit's commands."""

from __future__ import annotations

KINDS: dict[str, str] = {
    "coupler": "genkit.interfaces:Coupler",
    "dataset-coupler": "genkit.interfaces:DatasetCoupler",
    "denoiser": "genkit.interfaces:Denoiser",
    "guidance": "genkit.interfaces:Guidance",
    "solver": "genkit.interfaces:Solver",
    "discriminator": "genkit.interfaces:Discriminator",
    "classifier": "genkit.interfaces:Classifier",
    "preconditioner": "genkit.interfaces:Preconditioner",
    "noise-distribution": "genkit.interfaces:NoiseDistribution",
    "schedule": "genkit.interfaces:Schedule",
    "latents": "genkit.interfaces:Latents",
    "objective": "genkit.interfaces:Objective",
    "optimizer": "genkit.interfaces:Optimizer",
    "average": "genkit.interfaces:Average",
    "dataset": "genkit.interfaces:Dataset",
    "augmentation": "genkit.interfaces:Augmentation",
    "callback": "genkit.interfaces:Callback",
    "extractor": "genkit.interfaces:Extractor",
    "metric": "genkit.interfaces:Metric",
    "importer": "genkit.interfaces:Importer",
    "tracker": "genkit.interfaces:Tracker",
    "stage": "genkit.interfaces:Stage",
}

CORE_COMMANDS = frozenset({"list-plugins", "run", "show", "validate"})
"""Names of genkit's own commands, which commands of plugins cannot have."""
