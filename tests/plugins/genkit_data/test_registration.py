from __future__ import annotations

import subprocess
import sys

import genkit_data
from genkit.plugin.registry import Owner, Registration, Registry
from genkit.testing import check_component

NAMES = {
    "digits",
    "cifar10",
    "edm-zip",
    "npz",
    "tensors",
    "huggingface",
    "mirrored",
    "fashion-mnist",
    "image-folder",
    "real-and-fake",
    "swiss-roll",
    "moons",
    "flip",
    "edm",
}


def test_every_component_loads_as_its_kind():
    registration = Registration(Owner("data", "genkit-diffusion", "0"))
    genkit_data.genkit_register(registration)
    registry = Registry()
    registry.accept(registration)
    assert {entry.name for entry in registry.entries()} == NAMES
    for entry in registry.entries():
        check_component(registry.load(entry))


def test_registering_imports_nothing_heavy():
    code = (
        "import sys, genkit_data; sys.exit({'torch', 'PIL', 'numpy'} & set(sys.modules) != set())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
