from __future__ import annotations

import subprocess
import sys

import genkit_dg
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.testing import check_component

NAMES = {
    ("guidance", "discriminator"),
    ("discriminator", "scratch"),
    ("discriminator", "mlp-discriminator"),
    ("discriminator", "denoiser-encoder"),
    ("discriminator", "adm-classifier"),
    ("classifier", "noisy-classifier"),
    ("importer", "adm-classifier"),
    ("objective", "discrimination"),
    ("objective", "guided-denoising"),
    ("stage", "choose-discriminator"),
    ("stage", "fit-weight"),
    ("noise-distribution", "dg-importance"),
}


def test_every_component_loads_as_its_kind():
    registration = Registration(Owner("dg", "genkit-diffusion", "0"))
    genkit_dg.genkit_register(registration)
    registry = Registry()
    registry.accept(registration)
    assert {(entry.kind, entry.name) for entry in registry.entries()} == NAMES
    for entry in registry.entries():
        check_component(registry.load(entry))


def test_registering_imports_nothing_heavy():
    code = "import sys, genkit_dg; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
