from __future__ import annotations

import subprocess
import sys

import genkit_optim
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.testing import check_component

NAMES = {
    ("optimizer", "adam"),
    ("optimizer", "adamw"),
    ("average", "ema"),
    ("average", "power-ema"),
}


def test_every_component_loads_as_its_kind():
    registration = Registration(Owner("optim", "genkit-diffusion", "0"))
    genkit_optim.genkit_register(registration)
    registry = Registry()
    registry.accept(registration)
    assert {(entry.kind, entry.name) for entry in registry.entries()} == NAMES
    for entry in registry.entries():
        check_component(registry.load(entry))


def test_registering_imports_nothing_heavy():
    code = "import sys, genkit_optim; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
