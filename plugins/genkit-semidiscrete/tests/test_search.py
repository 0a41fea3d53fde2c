from __future__ import annotations

import pytest
import torch

from genkit.random import generator
from genkit_semidiscrete import search
from genkit_semidiscrete.cells import Cells, chi_squared, total_variation


@pytest.mark.parametrize(("images", "noises"), [(8192, 1024), (7, 5), (1, 1)])
def test_blocks_find_what_the_whole_matrix_shows(
    monkeypatch: pytest.MonkeyPatch, images: int, noises: int
) -> None:
    monkeypatch.setattr(search, "IMAGES", images)
    monkeypatch.setattr(search, "NOISES", noises)
    g = generator(0, "search")
    points, potential = torch.randn(30, 4, generator=g), torch.randn(30, generator=g)
    noise = torch.randn(17, 4, generator=g)
    scores = noise.double() @ points.double().T + potential.double()
    index, score = search.search(points, potential, noise)
    assert torch.equal(index, scores.argmax(1))
    torch.testing.assert_close(score.double(), scores.amax(1), rtol=0, atol=1e-5)
    two = scores.topk(2, 1).values
    expected = float((two[:, 0] - two[:, 1]).mean())
    assert search.margin(points, potential, noise) == pytest.approx(expected, abs=1e-5)


def test_it_finds_the_nearest_image_when_the_potential_is_half_the_squared_length() -> None:
    g = generator(0, "nearest")
    points, noise = torch.randn(30, 4, generator=g), torch.randn(50, 4, generator=g)
    index, _ = search.search(points, -points.square().sum(1) / 2, noise)
    assert torch.equal(index, torch.cdist(noise, points).argmin(1))


def test_of_equal_scores_the_first_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "IMAGES", 2)
    index, _ = search.search(torch.ones(5, 3), torch.zeros(5), torch.ones(4, 3))
    assert index.tolist() == [0, 0, 0, 0]


def test_chi_squared_is_unbiased() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    taken = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    g = generator(0, "chi")
    found = [
        chi_squared(
            torch.bincount(torch.multinomial(taken, 20, True, generator=g), minlength=3).double(),
            shares,
        )
        for _ in range(4000)
    ]
    expected = float(((taken - shares).square() / shares).sum())
    mean, deviation = torch.tensor(found).mean(), torch.tensor(found).std()
    assert abs(float(mean) - expected) < 4 * float(deviation) / 4000**0.5


def test_total_variation_is_the_share_that_would_have_to_move() -> None:
    shares = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert total_variation(torch.tensor([9.0, 1.0], dtype=torch.float64), shares) == 0.4


def test_a_step_lowers_what_is_chosen_too_often_and_keeps_the_mean() -> None:
    cells = Cells(torch.eye(3), torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64))
    before = torch.zeros(3, dtype=torch.float64)
    counts = torch.tensor([4.0, 4.0, 0.0], dtype=torch.float64)
    assert cells.ascend(before, counts, 0.5).tolist() == [0.0, -0.5, 0.5]
    # With at most as many noise samples as images, one choice changes a potential by at most one
    # step.
    few = cells.ascend(before, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), 0.5)
    assert float(few.max() - few.min()) <= 0.5 * 4 / 3
