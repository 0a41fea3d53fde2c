"""The picture of trajectories: what is drawn, and for which data."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from PIL import Image

import genkit
from genkit.errors import Code, DataError, RecipeError
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe.recipe import load_recipe
from genkit.recipe.source import Source
from genkit.testing import subject_of
from genkit.types import Batch, DataSpec
from genkit_metrics import trajectory_plot
from genkit_metrics.straightness import Straightness
from genkit_metrics.trajectory_plot import Trajectories
from raising import raises_code

RECIPE = """
name = "drawn"
data = { use = "moons" }

[[stage]]
id = "denoiser"
use = "train"
images = 64
network = { use = "mlp" }
objective = { use = "denoising" }

[[stage]]
id = "samples"
use = "sample"
denoiser = "denoiser"
count = 16

[[stage]]
id = "scores"
use = "evaluate"
samples = "samples"
metrics = [{ use = "trajectories" }]
"""


@pytest.fixture
def figures(monkeypatch):
    """The figures that were written, besides their files."""
    written = []
    render = trajectory_plot.png_of

    def keep(figure):
        written.append(figure)
        return render(figure)

    monkeypatch.setattr(trajectory_plot, "png_of", keep)
    return written


def points(count):
    return Batch(torch.randn(count, 2, generator=generator(0, "points")))


def test_a_hundred_trajectories_over_the_data(
    figures, fake_context, edm_like, exact_gaussian, gaussian_denoiser
):
    parts = {"solver": exact_gaussian, "schedule": edm_like, "count": 300}
    data, context = points(50), fake_context()
    subject = subject_of(None, points(7), data, gaussian_denoiser)
    found = Trajectories(**parts).measure(subject, context)
    score = Straightness(**parts).measure(subject, context)
    assert (found.scores, found.curves) == (score.scores, score.curves)
    with Image.open(io.BytesIO(found.pictures["trajectories"])) as image:
        assert min(image.size) >= 1000

    (axes,) = figures[0].axes
    title = axes.get_title(loc="left")
    assert title == f"100 trajectories; straightness {found.scores['straightness']:.4g}"
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    real, noise, ends = (
        np.asarray(c.get_offsets()) for c in axes.collections if not isinstance(c, LineCollection)
    )
    assert real == pytest.approx(data.data.numpy())
    assert noise.shape == ends.shape == (100, 2)
    # The exact trajectory x(sigma) = x(80) sqrt((1/4 + sigma^2) / (1/4 + 80^2)), over 1 + sigma.
    sigmas = edm_like.sigmas().numpy()
    scale = np.sqrt((0.25 + sigmas**2) / (0.25 + 80**2)) / (1 + sigmas) * 81
    for segment, start, end in zip(lines.get_segments(), noise, ends, strict=True):
        assert segment == pytest.approx(start * scale[:, None])
        assert segment[-1] == pytest.approx(end)
    assert noise.std() == pytest.approx(80 / 81, rel=0.2)


def test_fewer_trajectories_are_all_drawn(
    figures, fake_context, edm_like, plain_euler, point_denoiser
):
    metric = Trajectories(solver=plain_euler, schedule=edm_like, count=3)
    metric.measure(subject_of(None, points(7), points(5), point_denoiser), fake_context())
    assert figures[0].axes[0].get_title(loc="left").startswith("3 trajectories; ")


@pytest.mark.parametrize("shape", [(1,), (3,), (1, 8, 8), (2, 1, 1)])
def test_other_items_than_points_of_the_plane_are_problems(shape):
    drawn, scored = (genkit.component("metric", use) for use in ("trajectories", "straightness"))
    (problem,) = drawn.check_items(DataSpec(shape))
    assert problem.code is Code.WRONG_SHAPE
    assert not list(drawn.check_items(DataSpec((2,))))
    assert not list(scored.check_items(DataSpec(shape)))


def test_images_are_refused_before_anything_runs():
    plugins = load_plugins()
    load_recipe(Source.parse(RECIPE), plugins)
    text = RECIPE.replace("moons", "digits")
    with raises_code(RecipeError, Code.WRONG_SHAPE, "scores.metrics.0", '"straightness"'):
        load_recipe(Source.parse(text), plugins)


def test_statistics_stand_for_the_data_where_it_is_not_drawn(
    tmp_path, fake_context, edm_like, plain_euler, point_denoiser
):
    np.savez(tmp_path / "edm.npz", mu=np.zeros(2), sigma=np.eye(2))
    text = f'{RECIPE}statistics = "{tmp_path / "edm.npz"}"\n'
    with raises_code(RecipeError, Code.CONFLICT, "scores.metrics.0", "data instead"):
        load_recipe(Source.parse(text), load_plugins())
    load_recipe(Source.parse(text.replace("trajectories", "straightness")), load_plugins())
    subject = replace(subject_of(None, points(2), points(2), point_denoiser), reference=None)
    parts = {"solver": plain_euler, "schedule": edm_like, "count": 2}
    assert Straightness(**parts).measure(subject, fake_context()).scores
    with pytest.raises(DataError):
        Trajectories(**parts).measure(subject, fake_context())
