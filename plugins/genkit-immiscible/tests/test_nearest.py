"""The nearest of k noise samples, compared with loops, order statistics and its declarations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genkit.errors import Code, DataError, SettingError
from genkit.random import generator
from genkit.testing import check_component, check_coupler
from genkit.types import Batch
from genkit_immiscible.nearest import BLOCK, Immiscible, compute_distances

SHAPE = (3, 4, 5)


def pool(images: int, k: int, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    g = generator(0, "immiscible", images, k)
    return torch.randn((images, *shape), generator=g), torch.randn(
        (images * k, *shape), generator=g
    )


def chosen(data: Tensor, noise: Tensor, k: int) -> Tensor:
    """Return the index of the noise sample of each image."""
    pairs = Immiscible(candidates=k).pair(Batch(data), noise, generator(0))
    assert torch.equal(pairs.data, torch.arange(len(data)))
    return pairs.noise


@pytest.mark.parametrize("k", [2, 4, 64])
def test_laws(k: int) -> None:
    check_component(Immiscible)
    check_coupler(Immiscible(candidates=k), another_process=k == 4)


@pytest.mark.parametrize(("images", "k"), [(1, 2), (37, 4), (BLOCK // 64 * 2 + 3, 64)])
def test_each_image_takes_the_nearest_of_its_own_noises(images: int, k: int) -> None:
    data, noise = pool(images, k)
    x, y = data.double().flatten(1).numpy(), noise.double().flatten(1).numpy()
    for image, found in enumerate(chosen(data, noise, k).tolist()):
        own = range(image * k, (image + 1) * k)
        assert found == min(own, key=lambda i: float(np.linalg.norm(x[image] - y[i])))


def test_one_image_more_than_a_block_of_noises() -> None:
    k = BLOCK + 1
    data, noise = pool(3, k, (2,))
    by_hand = [int((noise[i * k :][:k] - data[i]).norm(dim=1).argmin()) for i in range(3)]
    assert chosen(data, noise, k).tolist() == [i * k + by_hand[i] for i in range(3)]


@pytest.mark.parametrize("k", [2, 4, 64])
def test_an_image_at_zero_takes_the_shortest_noise(k: int) -> None:
    """Its norm is the minimum of k draws from a chi distribution."""
    dimensions, images = 64, 4000
    _, noise = pool(images, k, (dimensions,))
    taken = noise[chosen(torch.zeros(images, dimensions), noise, k)]
    length = taken.double().norm(dim=1).numpy()
    chi = stats.chi(dimensions)
    assert stats.kstest(length, lambda t: 1 - chi.sf(t) ** k).pvalue > 0.01
    # The norms do not follow the chi distribution.
    assert stats.kstest(length, chi.cdf).pvalue < 1e-6


@pytest.mark.parametrize("k", [2, 4])
def test_noise_leans_towards_a_far_image(k: int) -> None:
    """Along the image, it is the maximum of k normal values; in other directions, it is normal."""
    images = 4000
    _, noise = pool(images, k, (3,))
    data = torch.zeros(images, 3, dtype=torch.float64)
    data[:, 0] = 1e6
    taken = noise[chosen(data, noise.double(), k)].double().numpy()
    assert stats.kstest(taken[:, 0], lambda t: stats.norm.cdf(t) ** k).pvalue > 0.01
    for across in (1, 2):
        assert stats.kstest(taken[:, across], stats.norm.cdf).pvalue > 0.01


def test_what_it_declares() -> None:
    coupler = Immiscible()
    assert (coupler.candidates, coupler.noises_per_image) == (4, 4)
    assert not coupler.bijective
    assert not coupler.preserves_noise_marginal
    assert coupler.preserves_conditional_prior == frozenset()


def test_a_tie_takes_the_first() -> None:
    assert chosen(torch.zeros(2, 3), torch.ones(8, 3), 4).tolist() == [0, 4]


@pytest.mark.parametrize("candidates", [1, 0, -3])
def test_fewer_than_two_candidates_are_refused(candidates: int) -> None:
    with pytest.raises(SettingError) as caught:
        Immiscible(candidates=candidates)
    (problem,) = caught.value.problems
    assert (problem.key, problem.code) == (("candidates",), Code.OUT_OF_RANGE)


@pytest.mark.parametrize("noises", [8, 15, 17])
def test_another_number_of_noises_is_refused(noises: int) -> None:
    with pytest.raises(DataError) as caught:
        chosen(torch.zeros(4, 3), torch.zeros(noises, 3), 4)
    assert caught.value.code == Code.WRONG_LENGTH
    assert f"got {noises}" in str(caught.value)


def test_noise_of_another_shape_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        chosen(torch.zeros(4, 1, 2, 3), torch.zeros(16, 6), 4)
    assert caught.value.code == Code.WRONG_SHAPE
    assert "(1, 2, 3)" in str(caught.value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    data, noise = pool(300, 4)
    data[290, 1, 2, 3] = value  # after the first block
    with pytest.raises(DataError) as caught:
        chosen(data, noise, 4)
    assert caught.value.code == Code.NOT_FINITE
    assert "image 290 of" in str(caught.value)
    data, noise = pool(300, 4)
    noise[1170, 1, 2, 3] = value
    with pytest.raises(DataError) as caught:
        chosen(data, noise, 4)
    assert caught.value.code == Code.NOT_FINITE
    assert "noise 1170 of" in str(caught.value)


def test_a_distance_that_overflows_is_named() -> None:
    data, noise = pool(300, 4)
    data[290] *= 1e20  # finite, but its square is not
    with pytest.raises(DataError) as caught:
        chosen(data, noise, 4)
    assert caught.value.code == Code.NOT_FINITE
    assert "image 290 of 300 contains inf" in str(caught.value)
    assert len(chosen(data.double(), noise.double(), 4)) == 300


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    data, noise = pool(50, 4)
    narrow, drawn = (data * 300).to(dtype), noise.to(dtype)  # squares overflow in float16
    found = compute_distances(narrow, drawn, 4)
    assert found.dtype == torch.float32
    assert torch.equal(found, compute_distances(narrow.float(), drawn.float(), 4))
    assert torch.equal(chosen(narrow, drawn, 4), chosen(narrow.double(), drawn.double(), 4))


class Largest(TorchDispatchMode):
    """Records the maximum number of values that an operation allocated."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        known = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, Tensor)}
        if isinstance(result, Tensor) and result.untyped_storage().data_ptr() not in known:
            self.values = max(self.values, result.numel())
        return result


def test_memory_is_bounded_by_a_block() -> None:
    data, noise = pool(1024, 8, (16,))
    narrow, drawn = data.half(), noise.half()
    with Largest() as largest:
        compute_distances(narrow, drawn, 8)
    assert 0 < largest.values <= max(BLOCK * 16, 1024 * 8)
