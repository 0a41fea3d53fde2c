"""What a training records of its pairs, in the file of the network."""

import logging

import numpy as np
import pytest
import torch

from genkit.api import run_recipe
from genkit.artifacts import DenoiserFile
from genkit.random import generator
from genkit.train.coupling import FEWEST_PAIRS
from genkit.types import Batch
from genkit_aot.hungarian import Hungarian
from genkit_data.points import Moons

pytestmark = pytest.mark.usefixtures("coarse_pictures")

RECIPE = """
name = "coupling"
data = {{ use = "moons", items = 500 }}

[[stage]]
id = "denoiser"
use = "train"
images = {images}
batch_size = 64
pool_size = 96
network = {{ use = "mlp", width = 8, blocks = 1 }}
objective = {{ use = "denoising" }}
coupler = {{ use = "{coupler}" }}
"""


@pytest.fixture
def coupling_in(tmp_path):
    def run(coupler, images):
        recipe = tmp_path / "recipe.toml"
        recipe.write_text(RECIPE.format(coupler=coupler, images=images), encoding="utf-8")
        found = run_recipe(recipe, out=tmp_path / "run", device="cpu")
        (path,) = found.folder.glob(f"*/{DenoiserFile.filename()}")
        return DenoiserFile.outline(path).coupling

    return run


def test_the_file_holds_the_statistics_of_the_first_pairs(coupling_in):
    found = coupling_in("hungarian", 300).statistics

    # Pools of 96 and one of 12, drawn again, whose pairs are found on the whole matrix.
    data = Moons(items=500).load(None).data
    order = torch.randperm(500, generator=generator(0, "denoiser", "order", 0))
    images, noises = [], []
    for index, start in enumerate(range(0, 300, 96)):
        pool = data[order[start : min(start + 96, 300)]]
        noise = torch.randn(pool.shape, generator=generator(0, "denoiser", "noise", index))
        pairs = Hungarian().pair(Batch(pool), noise, generator(0))
        images.append(pool[pairs.data])
        noises.append(noise[pairs.noise])
    y, n = torch.cat(images).double().numpy(), torch.cat(noises).double().numpy()
    values, axes = np.linalg.eigh(np.cov(y.T))
    both = np.cov(np.concatenate([y @ axes, n @ axes], axis=1).T)
    assert (found.pairs, found.pools) == (300, 4)
    np.testing.assert_allclose(found.deviations, np.sqrt(values[::-1]), rtol=1e-9)
    np.testing.assert_allclose(found.covariances, np.diag(both, 2)[::-1], rtol=1e-9)
    assert found.variance == pytest.approx(values.sum(), rel=1e-9)
    assert found.covariance == pytest.approx(np.diag(both, 2).mean(), rel=1e-9)


def test_independent_noise_is_not_measured(coupling_in):
    assert coupling_in("random", 300).statistics is None


def test_too_few_pairs_are_not_measured_and_a_warning_says_how_many_are(coupling_in, caplog):
    with caplog.at_level(logging.WARNING, "genkit"):
        found = coupling_in("hungarian", FEWEST_PAIRS - 1)

    assert found.statistics is None
    assert str(FEWEST_PAIRS) in caplog.text
