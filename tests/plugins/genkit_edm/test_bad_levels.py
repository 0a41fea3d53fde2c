"""Noise levels that make no sense are told before anything runs, with the place in the recipe."""

from __future__ import annotations

import re

import pytest
import torch

from genkit.api import component
from genkit.cli import main
from genkit.errors import Code, DataError
from genkit.sample import supported_levels
from raising import raises_code

pytestmark = pytest.mark.slow

RECIPE = """name = "bad"
data = { use = "moons" }

[[stage]]
id = "denoiser"
use = "train"
images = 1000
network = { use = "mlp", preconditioner = { use = "PRECONDITIONER" } }
objective = { use = "denoising" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
schedule = SCHEDULE
"""


@pytest.mark.parametrize(
    ("preconditioner", "schedule", "reason"),
    [
        ("edm", '{ use = "edm", rho = 1e-5 }', r"samples\.schedule\.rho.*\[conflict\]"),
        ("edm", '{ use = "edm", rho = 1e9 }', r"samples\.schedule\.rho.*1e\+06.*\[out-of-range\]"),
        ("edm", '{ use = "edm", rho = nan }', r"samples\.schedule\.rho.*got nan \[out-of-range\]"),
        ("edm", '{ use = "vp", sigma_min = 1e-12 }', r"schedule\.sigma_min.*at least 1e-09"),
        (
            "edm",
            '{ use = "vp", sigma_min = 0.5 }',
            r"schedule\.sigma_min.*such as 0\.01.*\[conflict\]",
        ),
        (
            "edm",
            '{ use = "flow", sigma_max = inf }',
            r"schedule\.sigma_max.*got inf \[out-of-range\]",
        ),
        ("edm", '{ use = "linear", steps = 10_000_000 }', r"schedule\.steps.*100,000 or less"),
        (
            "edm",
            '{ use = "iddpm", steps = 1500 }',
            r"schedule\.steps.*\d+ noise levels",
        ),
        ("edm", '{ use = "ve", sigma_min = 200.0 }', r"sigma_max = 100, got 200.*\[conflict\]"),
        (
            "ve",
            '{ use = "edm", sigma_min = 150.0, sigma_max = 200.0 }',
            r"got only 100; write levels from 0",
        ),
        ("vp", '{ use = "edm", sigma_max = 5e-4, sigma_min = 1e-4 }', r"got only 0\.001"),
    ],
)
def test_levels_are_refused(
    preconditioner: str, schedule: str, reason: str, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.toml").write_text(
        RECIPE.replace("PRECONDITIONER", preconditioner).replace("SCHEDULE", schedule)
    )
    with pytest.raises(SystemExit) as ended:
        main(["validate", "bad.toml"])
    assert ended.value.code == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "bad.toml:15" in told

    assert re.search(reason, told), told


def test_a_range_of_the_network_in_which_levels_do_not_fall_is_refused() -> None:
    """VP's parabola cannot start from so high a level: two steps would have been left."""
    network = component("preconditioner", "ve", sigma_min=0.5)
    with raises_code(DataError, Code.OUT_OF_RANGE, "0.5", "100"):
        supported_levels(component("schedule", "vp"), network)
    assert len(supported_levels(component("schedule", "edm"), network)) == 19


@pytest.mark.parametrize("schedule", ["edm", "vp", "ve", "iddpm", "linear", "log-linear", "flow"])
@pytest.mark.parametrize("preconditioner", ["edm", "vp", "ve", "iddpm", "flow"])
@pytest.mark.parametrize("steps", [1, 18, 256])
def test_every_network_takes_every_schedule(preconditioner: str, schedule: str, steps: int) -> None:
    """As far as its range goes: the schedule is narrowed to what the network knows."""
    network = component("preconditioner", preconditioner)
    levels = supported_levels(component("schedule", schedule, steps=steps), network)
    assert torch.equal(network.round_sigma(levels[:-1]), levels[:-1])
    assert bool((levels.diff() < 0).all())
    assert len(levels) == steps + 1 or "iddpm" in (preconditioner, schedule) or schedule == "flow"


def test_a_table_takes_the_steps_that_it_has() -> None:
    """As the reference, but for the steps that go nowhere."""
    network = component("preconditioner", "iddpm")
    levels = supported_levels(component("schedule", "edm", steps=256), network)
    low, high = network.round_sigma(torch.tensor([0.0, 80.0], dtype=torch.float64)).tolist()
    ramp = torch.linspace(80 ** (1 / 7), low ** (1 / 7), 256, dtype=torch.float64) ** 7
    assert levels[:-1].tolist() == sorted(set(network.round_sigma(ramp).tolist()), reverse=True)
    assert levels[0] == high
    assert len(supported_levels(component("schedule", "edm", steps=40), network)) == 41
