"""Fitted potentials, compared with closed forms, exact discrete transport and interrupted runs."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import norm
from torch import Tensor

from genkit import component
from genkit.errors import Code, DataError, InterruptedRun
from genkit.random import generator
from genkit.tensors import load, to_float
from genkit.testing import check_component, check_stage
from genkit.types import Batch
from genkit_semidiscrete.coupler import BoundSemidiscrete
from genkit_semidiscrete.stage import FitPotential


def points(count: int, dimensions: int, *, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, dimensions, generator=generator(0, "points", count))


def chosen(coupler: BoundSemidiscrete, batch: Batch, noises: int) -> tuple[Tensor, Tensor]:
    """Return new noise samples and the image of each."""
    noise = torch.randn(noises, *batch.data.shape[1:], generator=generator(1, "fresh"))
    return noise, coupler.choose(batch, noise, generator(1, "coupling"))


def relative_error(index: Tensor, shares: Tensor) -> Tensor:
    """Return the error of each frequency in standard deviations of its count."""
    expected = shares * len(index)
    return (torch.bincount(index, minlength=len(shares)) - expected) / expected.sqrt()


def test_two_points_share_the_noise_by_the_plane_between_them(fit: Any) -> None:
    batch = Batch(torch.tensor([[3.0, 1.0], [-1.0, 0.5]]))
    noise, index = chosen(fit(batch), batch, 4000)
    # Both halves have the same probability, so the plane contains the origin.
    nearer = noise @ (batch.data[0] - batch.data[1]) > 0
    assert float(((index == 0) == nearer).float().mean()) > 0.99


def test_points_on_a_line_take_the_quantile_cells(fit: Any) -> None:
    line = torch.tensor([[0.3], [-2.0], [0.1], [5.0], [0.0], [-0.4]])
    coupler = fit(Batch(line))
    order = line[:, 0].argsort()
    x, h = line[order, 0].double(), coupler.potential.values[order].double()
    # The scores of neighbors are equal at z = (h_i - h_j) / (x_j - x_i), a quantile of N(0, 1).
    borders = (h[:-1] - h[1:]) / (x[1:] - x[:-1])
    np.testing.assert_allclose(norm.cdf(borders), np.arange(1, 6) / 6, atol=0.01)


def test_images_that_are_kept_as_bytes_are_decoded(fit: Any) -> None:
    images = torch.randint(0, 256, (20, 1, 2, 2), generator=generator(0), dtype=torch.uint8)
    potentials = []
    for data in (images, to_float(images)):
        place = fit.place()
        fit.stage(Batch(data)).run(place)
        potentials.append((place.folder / "potential.safetensors").read_bytes())
    assert potentials[0] == potentials[1]


def test_it_is_exact_transport_of_a_large_sample(fit: Any) -> None:
    batch = Batch(points(20, 3))
    coupler = fit(batch)
    noise, index = chosen(coupler, batch, 1000)
    cost = torch.cdist(noise.double(), batch.data.double()).square()
    rows, columns = linear_sum_assignment(cost.repeat_interleave(50, dim=1).numpy())
    best = float(cost[rows, columns // 50].mean())
    # By weak duality, no potential exceeds the minimum cost; the fitted one is close to it.
    h = coupler.potential.values.double()
    g = 2 * h + batch.data.double().square().sum(1)
    bound = float(g.mean() + (cost - g).amin(1).mean())
    assert 0.98 * best < bound <= best + 1e-9
    assert float((index == torch.from_numpy(columns // 50)).float().mean()) > 0.85


def test_every_image_is_chosen_alike(fit: Any) -> None:
    batch = Batch(points(100, 8, scale=0.5) + torch.tensor([2.0] + [0.0] * 7))
    place = fit.place()
    fit.stage(batch).run(place)
    _, index = chosen(fit(batch), batch, 20_000)
    found = relative_error(index, torch.full((100,), 0.01))
    # Sampling contributes 1; the fit, with 512 noise samples per image, adds about
    # sqrt(20,000 / 50,000).
    assert float(found.square().mean()) < 2
    last = fit.rows(place)[-1]
    assert last["marginal_error"] < 0.1
    assert last["never_chosen"] == 0
    assert last["total_variation"] < 0.05 + 0.4 * (100 / 10_240) ** 0.5
    far, near = fit.rows(place)[0]["objective"], last["objective"]
    half_squared = float((batch.data.double().square().sum(1).mean() + 8) / 2)
    assert far - 0.1 < near < half_squared


def test_a_potential_for_each_class(fit: Any) -> None:
    data = points(60, 4)
    labels = torch.tensor([0] * 40 + [1] * 19 + [2])
    data[labels == 1] += 5
    batch = Batch(data, labels)
    noise, index = chosen(fit(batch, by=("label",)), batch, 12_000)
    assert float(relative_error(index, torch.full((60,), 1 / 60)).square().mean()) < 2
    for label, share in enumerate((40 / 60, 19 / 60, 1 / 60)):
        mine = noise[labels[index] == label]
        deviation = math.sqrt(12_000 * share * (1 - share))
        assert abs(len(mine) - 12_000 * share) < 5 * deviation
        assert float(mine.mean(0).abs().max()) < 5 / len(mine) ** 0.5
    blind_noise, blind = chosen(fit(batch), batch, 12_000)
    assert float(blind_noise[labels[blind] == 1].mean()) > 0.3


def test_equal_images_share_what_one_would_take(fit: Any) -> None:
    data = points(10, 3)
    batch = Batch(data[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 3]])
    _, index = chosen(fit(batch), batch, 12_000)
    assert float(relative_error(index, torch.full((12,), 1 / 12)).square().mean()) < 2.5


@pytest.mark.parametrize("count", [1, 2])
def test_the_smallest_data_sets(fit: Any, count: int) -> None:
    batch = Batch(points(count, 3))
    _, index = chosen(fit(batch), batch, 100)
    assert sorted(set(index.tolist())) == list(range(count))


def test_the_file_says_what_it_belongs_to(fit: Any) -> None:
    batch = Batch(points(9, 3), torch.arange(9) % 2)
    place = fit.place()
    fit.stage(batch, by=("label",)).run(place)
    named, metadata = load(place.folder / "potential.safetensors")
    stored = {name: json.loads(value) for name, value in metadata.items()}
    assert named["potential"].shape == (9,)
    assert stored["images"] == 9
    assert stored["by"] == ["label"]
    facts = stored["facts"]
    assert facts["cost"] == "squared"
    assert len(facts["digest"]) == 64
    assert facts["marginal_error"] == fit.rows(place)[-1]["marginal_error"]
    scores = json.loads((place.folder / "scores.json").read_text(encoding="utf-8"))
    assert scores["rows"] == fit.rows(place)[-1:]


@pytest.mark.parametrize("stop_at", [1, 57, 200, 210])
def test_a_stopped_fit_goes_on_to_the_same_bytes(fit: Any, stop_at: int) -> None:
    stage = fit.stage(Batch(points(12, 3), torch.arange(12) % 3), by=("label",), batch_size=64)
    whole, parted = fit.place(), fit.place()
    stage.run(whole)
    with pytest.raises(InterruptedRun) as caught:
        stage.run(fit.stopped(parted, stop_at=stop_at))
    assert caught.value.code == Code.INTERRUPTED
    assert str(stop_at) in str(caught.value)
    assert not (parted.folder / "potential.safetensors").exists()
    stage.run(parted)
    for name in ("potential.safetensors", "metrics.jsonl"):
        assert (parted.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_another_seed_draws_other_noise(fit: Any) -> None:
    stage = fit.stage(Batch(points(5, 3)), batch_size=64)
    found = []
    for seed in (0, 1):
        place = fit.stopped(fit.place(), seed_of_run=seed)
        stage.run(place)
        found.append((place.folder / "potential.safetensors").read_bytes())
    assert found[0] != found[1]


def test_a_damaged_checkpoint_is_named(fit: Any) -> None:
    place = fit.place()
    (place.folder / "checkpoint.safetensors").write_bytes(b"no")
    with pytest.raises(DataError) as caught:
        fit.stage(Batch(points(5, 3))).run(place)
    assert caught.value.code == Code.UNREADABLE
    assert "checkpoint.safetensors" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e20])
def test_images_that_have_no_length_are_refused(fit: Any, value: float) -> None:
    data = points(6, 3)
    data[4, 1] = value
    with pytest.raises(DataError) as caught:
        fit(Batch(data))
    assert caught.value.code == Code.NOT_FINITE
    assert "image 4 of" in str(caught.value)


def test_labels_are_needed_to_part_by_them(fit: Any) -> None:
    with pytest.raises(DataError) as caught:
        fit(Batch(points(6, 3)), by=("label",))
    assert caught.value.code == Code.MISSING_ATTRIBUTE
    (problem,) = fit.stage(Batch(points(6, 3)), by=("label",)).check({})
    assert problem.key == ("by",)


@pytest.mark.parametrize("by", [(), ("label",)])
def test_laws(by: tuple[str, ...]) -> None:
    moons = component("dataset", "moons", items=40)
    check_component(FitPotential)
    check_stage(FitPotential(data=moons, by=by, batch_size=64, noises_per_image=1))
