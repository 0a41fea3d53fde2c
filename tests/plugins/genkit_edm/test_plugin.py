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
    levels = {"edm", "vp", "ve", "iddpm", "flow"}
    expected = {
        "preconditioner": levels,
        "noise-distribution": levels - {"edm"} | {"log-normal"},
        "schedule": levels | {"linear", "log-linear"},
        "solver": {"euler", "heun", "dpmpp-2m", "dpmpp-2s", "adaptive"},
    }
    for kind, names in expected.items():
        assert {name for k, name in loaded if k == kind} == names
    assert {("denoiser", "ddpmpp"), ("denoiser", "mlp"), ("objective", "denoising")} <= set(loaded)
    assert all(cls.__doc__ for cls in loaded.values())


def test_the_hook_is_light() -> None:
    code = "import sys, genkit_edm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
