"""The shipped recipe of EDM2, with less of everything."""

from __future__ import annotations

import math

from genkit.api import run_recipe
from genkit.parts.power_averages import reconstruct_network, snapshots_in

TINY = {
    "denoiser.images": 512,
    "denoiser.batch_size": 64,
    "denoiser.average.snapshot_images": 128,
    "denoiser.network.channels": 16,
    "denoiser.network.channels_per_head": 16,
    "samples.count": 100,
    "samples.schedule.steps": 3,
    "scores.metrics.1.count": 16,
    "scores.metrics.1.schedule.steps": 6,
    "scores.metrics.1.schedule.use": "edm",
}


def test_the_recipe_leaves_what_averages_are_made_of(tmp_path):
    result = run_recipe("edm2", out=tmp_path / "run", settings=TINY, device="cpu")
    (row,) = result.scores["scores"]
    assert row["nfe"] == 5
    assert math.isfinite(row["frechet_classifier"])
    folder = tmp_path / "run" / "01-denoiser"
    found = [(s.images, s.length) for s in snapshots_in(folder)]
    assert found == [(n, length) for n in (128, 256, 384, 512) for length in (0.05, 0.1)]
    module = result.denoiser(device="cpu").module
    module.load_state_dict(reconstruct_network(folder, 0.08)[0])
