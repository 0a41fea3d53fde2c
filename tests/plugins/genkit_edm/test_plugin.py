from __future__ import annotations

import subprocess
import sys

import genkit_edm
from genkit.plugin.registry import Owner, Registration, Registry


def test_every_component_loads() -> None:
    registration = Registration(Owner("edm", "genkit-diffusion", "0"))
    genkit_edm.genkit_register(registration)
    registry = Registry()
    registry.accept(registration)
    loaded = {(e.kind, e.name): registry.load(e) for e in registry.entries()}
    assert set(loaded) == {
        ("denoiser", "ddpmpp"),
        ("denoiser", "mlp"),
        ("preconditioner", "edm"),
        ("sigma-distribution", "log-normal"),
        ("objective", "denoising"),
        ("schedule", "edm"),
        ("solver", "heun"),
        ("solver", "euler"),
    }
    assert all(cls.__doc__ for cls in loaded.values())


def test_the_hook_is_light() -> None:
    code = "import sys, genkit_edm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
