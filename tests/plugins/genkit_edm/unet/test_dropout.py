from __future__ import annotations

import pytest
import torch

from genkit_edm.unet.layers import Dropout


def dropped(x: torch.Tensor, probability: float = 0.13) -> torch.Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dropout(probability)(x)


@pytest.mark.parametrize("probability", [0.13, 0.5, 0.999])
def test_as_many_are_dropped_as_asked_and_the_mean_stays(probability: float) -> None:
    found = dropped(torch.ones(1_000_001), probability)
    share = float((found == 0).double().mean())
    assert share == pytest.approx(probability, abs=0.003)
    values = found[found != 0].unique()
    assert len(values) == 1
    assert float(values) == pytest.approx(1 / (1 - probability), rel=0.02)


def test_a_probability_next_to_1_drops_and_scales_no_further_than_a_draw_can_tell() -> None:
    assert set(dropped(torch.ones(100), 0.9999999).tolist()) <= {0.0, 2.0**16}


def test_neighbours_are_independent() -> None:
    kept = (dropped(torch.ones(400_000), 0.5) != 0).double()
    for apart in range(1, 9):  # four share a draw
        both = float((kept[apart:] * kept[:-apart]).mean())
        assert both == pytest.approx(0.25, abs=0.005)


def test_the_gradient_has_the_same_mask() -> None:
    x = torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last).requires_grad_()
    found = dropped(x, 0.4)
    assert found.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient * x, found)


def test_the_seed_chooses_and_evaluation_drops_nothing() -> None:
    x = torch.ones(100)
    assert torch.equal(dropped(x), dropped(x))
    module = Dropout(0.5)
    assert not torch.equal(module(x), module(x))
    assert module.eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_views_are_dropped_where_they_lie() -> None:
    view = torch.ones(4, 6)[:, ::2]
    assert dropped(view, 0.5).shape == view.shape
