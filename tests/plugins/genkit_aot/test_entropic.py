from __future__ import annotations

import ot
import pytest
import torch
from scipy.spatial.distance import cdist
from torch.overrides import TorchFunctionMode

from genkit.errors import Code, DataError
from genkit.random import generator
from genkit_aot import entropic
from genkit_aot.entropic import Costs, potentials
from raising import raises_code

METRIC = {"euclidean": "euclidean", "squared": "sqeuclidean"}


def pool(images=60, noises=60, dtype=torch.float64):
    g = generator(0, "entropic", images, noises)
    data = 0.5 * torch.randn((images, 1, 3, 4), generator=g) + 0.2
    return data.to(dtype), torch.randn((noises, 1, 3, 4), generator=g).to(dtype)


def reference(images, noise, cost):
    return torch.from_numpy(cdist(images.double().flatten(1), noise.flatten(1), METRIC[cost]))


def plan(costs, found):
    whole = torch.cat([costs.block(rows) for rows in costs.rows])
    return ((found.f[:, None] + found.g - whole) / found.epsilon).exp()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(entropic, "MIN_ROWS", 7)
    monkeypatch.setattr(entropic, "BLOCK", {"cpu": 1, "cuda": 1})


class Largest(TorchFunctionMode):
    """Remembers the size of the largest tensor that torch returns."""

    size = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
def test_costs_are_the_distances(cost):
    images, noise = pool(20, 30)
    costs = Costs(images, noise, cost)
    full = reference(images, noise, cost)
    torch.testing.assert_close(costs.whole, full)
    torch.testing.assert_close(costs.column_means, full.mean(0))
    rest = full - full.mean(0) - full.mean(1, keepdim=True) + full.mean()
    assert costs.scale == pytest.approx(float(rest.std(correction=0)))
    assert costs.level == pytest.approx(float(full.square().mean().sqrt()), rel=1e-6)


@pytest.mark.parametrize("cost", ["euclidean", "squared"])
@pytest.mark.parametrize(("images", "noises"), [(60, 60), (40, 70)])
@pytest.mark.parametrize("relative", [1.0, 0.1])
def test_the_plan_is_that_of_pot(cost, images, noises, relative):
    x, y = pool(images, noises)
    costs = Costs(x, y, cost)
    found = potentials(costs, costs.epsilon(relative), tolerance=1e-9)
    expected = ot.sinkhorn(
        torch.full((images,), 1 / images, dtype=torch.float64),
        torch.full((noises,), 1 / noises, dtype=torch.float64),
        reference(x, y, cost),
        reg=relative * costs.scale,
        method="sinkhorn_log",
        numItermax=20_000,
        stopThr=1e-10,
    )
    torch.testing.assert_close(plan(costs, found) / images, expected, rtol=1e-5, atol=1e-9)


def test_rows_sum_to_1_and_columns_to_within_the_error():
    costs = Costs(*pool(40, 70))
    found = potentials(costs, costs.epsilon(0.05), tolerance=0.03)
    whole = plan(costs, found)
    torch.testing.assert_close(whole.sum(1), torch.ones(40).double())
    error = float((whole.sum(0) * 70 / 40 - 1).square().mean().sqrt())
    assert error == pytest.approx(found.error)
    assert 0 < error <= 0.03


def test_float32_finds_what_float64_finds():
    x, y = pool()
    narrow, wide = Costs(x.float(), y.float()), Costs(x, y)
    one, other = (potentials(c, wide.epsilon(0.05), tolerance=1e-4) for c in (narrow, wide))
    torch.testing.assert_close(plan(narrow, one).double(), plan(wide, other), rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_types_are_computed_in_float32(dtype):
    x, y = pool(dtype=dtype)
    costs = Costs(x, y)
    assert costs.whole.dtype == torch.float32
    torch.testing.assert_close(costs.whole, Costs(x.float(), y.float()).whole)


def test_blocks_give_what_the_whole_gives(small_blocks):
    x, y = pool()
    kept, computed = Costs(x, y), Costs(x, y, memory=0)
    assert kept.whole is not None
    assert computed.whole is None
    assert len(computed.rows) == 9
    assert computed.scale == pytest.approx(kept.scale)
    one, other = (potentials(c, kept.epsilon(0.1), tolerance=1e-3) for c in (kept, computed))
    torch.testing.assert_close(one.f, other.f)
    torch.testing.assert_close(one.g, other.g)
    assert one.iterations == other.iterations


def test_no_more_than_a_block_is_made_where_memory_is_short(small_blocks):
    x, y = pool(210, 200, torch.float32)
    for memory, limit in ((0, 7 * 200 * 4), (1, 210 * 200 * 4)):
        with Largest() as seen:
            costs = Costs(x, y, memory=memory)
            potentials(costs, costs.epsilon(0.1))
        inputs = max(x.untyped_storage().nbytes(), y.untyped_storage().nbytes())
        assert inputs > 7 * 200 * 4
        assert seen.size == max(limit, inputs)


def test_the_matrix_and_a_kernel_share_the_memory():
    x, y = pool()
    both = 2 * 60 * 60 * 8 / entropic.GIB
    assert Costs(x, y, memory=both).whole is not None
    assert Costs(x, y, memory=both * 0.99).whole is None


def test_it_stops_after_the_iterations():
    costs = Costs(*pool())
    found = potentials(costs, costs.epsilon(0.01), tolerance=1e-6, iterations=2)
    assert found.error > 1e-6
    assert found.iterations < 60


@pytest.mark.parametrize("relative", [0.3, 0.05, 0.01])
def test_hard_pools_converge(relative):
    g = generator(0, "hard")
    noise = torch.randn((100, 2), generator=g)
    clusters = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 3.0]])[torch.arange(100) % 3]
    heavy = torch.randn((100, 2), generator=g) / torch.randn((100, 1), generator=g)
    for images in (clusters, heavy, 1000 * heavy, heavy + 1000, torch.zeros(100, 2), noise):
        for cost in ("euclidean", "squared"):
            costs = Costs(images, noise, cost)
            found = potentials(costs, costs.epsilon(relative))
            assert found.error <= 0.01
            assert bool(torch.isfinite(found.f).all() and torch.isfinite(found.g).all())


def test_a_kernel_is_made_anew_where_the_potentials_moved_far():
    g = generator(0, "far")
    images = torch.randn((80, 2), generator=g).double()
    noise = torch.randn((80, 2), generator=g).double()
    noise[:20] += 300  # columns that no row likes: their entries underflow at first
    costs = Costs(images, noise, "squared")
    epsilon = costs.epsilon(1e-3)
    found = potentials(costs, epsilon)
    assert found.error <= 0.01
    torch.testing.assert_close(plan(costs, found).sum(0), torch.ones(80).double(), rtol=0, atol=0.1)


def test_costs_that_are_all_alike_have_an_epsilon():
    zero = torch.zeros(5, 2)
    assert Costs(zero, zero).epsilon(0.1) == 1.0
    same = Costs(torch.ones(50, 30), pool(50)[1].flatten(1).float().repeat(1, 3)[:, :30])
    assert same.epsilon(1e-6) > 1e-6 * same.level
    assert potentials(same, same.epsilon(1e-6)).error <= 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["image", "noise"])
@pytest.mark.parametrize("memory", [0, 1])
def test_what_is_not_finite_is_named(value, name, memory):
    x, y = pool()
    (x if name == "image" else y)[33, 0, 1, 2] = value
    with raises_code(DataError, Code.NOT_FINITE, f"{name} 33"):
        Costs(x, y, memory=memory)


def test_an_overflow_is_named():
    x, y = pool(dtype=torch.float32)
    x[33] = 1e20
    with raises_code(DataError, Code.NOT_FINITE, "the cost of image 33", "inf"):
        Costs(x, y)
    assert Costs(x.double(), y).whole.isfinite().all()


def test_unlike_shapes_are_refused():
    x, y = pool()
    with raises_code(DataError, Code.WRONG_SHAPE, "(1, 3, 4)", "(12,)"):
        Costs(x, y.flatten(1))
