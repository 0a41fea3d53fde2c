"""Pictures of artifacts: samples beside the data of their denoiser, and scores with their floor."""

from __future__ import annotations

from types import SimpleNamespace
from unittest import mock

import pytest
import torch

import genkit
from genkit.artifacts import Samples, Scores
from genkit.report import pictures
from genkit.report.pictures import pictures_of
from genkit.types import Batch

POINTS = Samples(Batch(torch.zeros(30, 2)), 14, 6, "denoiser")


@pytest.fixture
def drawn(monkeypatch):
    """Return the sets of samples that are drawn, by title."""

    def draw(artifact, **stages):
        with mock.patch.object(pictures, "titled_grids", return_value=b"png") as grids:
            assert pictures_of(artifact, stages) == {"samples": b"png"}
        return grids.call_args.args[0]

    return draw


def trained_on(use, **settings):
    return SimpleNamespace(data=genkit.component("dataset", use, **settings))


def test_samples_are_beside_the_data_of_their_denoiser(drawn):
    moons = trained_on("moons", items=50)
    real, samples = drawn(POINTS, denoiser=moons, other=None).items()
    assert real[0] == "50 items of the training data"
    assert real[1].shape == (50, 2)
    assert samples[0] == "30 samples, 14 NFE and 6 calls for guidance"
    assert samples[1] is POINTS.batch.data


def test_few_of_many_images_are_shown_of_all_classes(drawn):
    images = Samples(Batch(torch.zeros(150, 1, 8, 8, dtype=torch.uint8)), 14, 0, "denoiser")
    digits = trained_on("digits")
    real, samples = drawn(images, denoiser=digits).items()
    assert len(real[1]) == 100
    assert samples[0] == "first 100 of 150 samples, 14 NFE"
    again, _ = drawn(images, denoiser=digits).items()
    assert torch.equal(real[1], again[1])


@pytest.mark.parametrize(
    "stage",
    [
        None,  # samples of another program
        SimpleNamespace(),  # a stage without data, such as load
        SimpleNamespace(data="moons"),
        trained_on("digits"),  # of another shape
        trained_on("real-and-fake", real={"use": "moons"}, fakes="samples"),  # of another stage
        trained_on("npz", path="absent.npz"),
    ],
)
def test_samples_without_data_are_alone(drawn, stage):
    assert list(drawn(POINTS, denoiser=stage)) == ["30 samples, 14 NFE and 6 calls for guidance"]


def test_a_score_is_drawn_with_that_of_real_data():
    rows = [{"steps": n, "nfe": n, "guidance_nfe": 0, "frechet": 10.0 / n} for n in (1, 2)]
    facts = {"frechet": {"measured.floor": "0.5"}}
    with mock.patch.object(pictures, "score_plot", return_value=b"png") as plot:
        assert pictures_of(Scores(rows, facts), {}) == {"frechet-against-nfe": b"png"}
    assert plot.call_args.args == (Scores(rows, facts), "frechet")
