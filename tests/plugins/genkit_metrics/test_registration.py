from __future__ import annotations

import subprocess
import sys

import genkit_metrics
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.testing import check_component

NAMES = {
    ("classifier", "cnn-classifier"),
    ("objective", "classification"),
    ("extractor", "classifier"),
    ("extractor", "pixels"),
    ("extractor", "inception"),
    ("extractor", "dinov2"),
    ("extractor", "clip"),
    ("metric", "frechet"),
    ("metric", "frechet-by-class"),
    ("metric", "kid"),
    ("metric", "cmmd"),
    ("metric", "prdc"),
    ("metric", "nearest"),
    ("metric", "mifid"),
    ("metric", "inception-score"),
    ("metric", "class-agreement"),
    ("metric", "spread"),
    ("metric", "curvature"),
    ("metric", "straightness"),
    ("metric", "trajectories"),
    ("metric", "truncation"),
}


def test_every_component_loads_as_its_kind():
    registration = Registration(Owner("metrics", "genkit-diffusion", "0"))
    genkit_metrics.genkit_register(registration)
    registry = Registry()
    registry.accept(registration)
    assert {(entry.kind, entry.name) for entry in registry.entries()} == NAMES
    for entry in registry.entries():
        check_component(registry.load(entry))


def test_registering_imports_nothing_heavy():
    code = "import sys, genkit_metrics; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
