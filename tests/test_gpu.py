"""The user's path on a GPU; skipped where there is none.

``GENKIT_NOX_CUDA=1 nox -s tests-3.11 -- tests/test_gpu.py`` runs these alone.
"""

from __future__ import annotations

import pytest
import torch

import genkit

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

SMALL = {
    "denoiser.images": 4096,
    "classifier.images": 2048,
    "discriminator.images": 2048,
    "fakes.count": 256,
    "samples.count": 256,
    "sweep.count": 128,
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_whole_method_runs_on_the_gpu(tmp_path, precision):
    settings = {**SMALL, "denoiser.precision": precision, "discriminator.channels_last": True}
    result = genkit.run_recipe("edm_aot_dg", out=tmp_path / "run", settings=settings, device="cuda")
    assert all(row["frechet"] >= 0 for row in result.scores["sweep"])


def test_cpu_and_gpu_sample_alike(tmp_path):
    result = genkit.run_recipe(
        "smoke", out=tmp_path / "run", settings={"denoiser.images": 20_000}, device="cpu"
    )
    on_cpu, on_gpu = (result.denoiser(device=d).sample(64) for d in ("cpu", "cuda"))
    torch.testing.assert_close(on_cpu, on_gpu, atol=1e-3, rtol=1e-3)
