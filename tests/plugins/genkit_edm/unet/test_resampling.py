from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from genkit_edm.unet.layers import Downsampling, Upsampling, make_kernel

TAPS = [(1, 1), (1, 3, 3, 1), (1, 5, 10, 10, 5, 1), (1, 2)]


def image() -> torch.Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("taps", TAPS)
def test_halving_is_a_convolution_of_which_every_other_pixel_is_kept(taps: tuple) -> None:
    line = np.array(taps) / sum(taps)
    start = (len(taps) - 1) // 2
    found = Downsampling(taps)(image())
    assert found.shape == (2, 3, 4, 6)
    for item, result in zip(image().flatten(0, 1), found.flatten(0, 1), strict=True):
        padded = np.pad(item.double().numpy(), start)
        whole = scipy.signal.correlate2d(padded, np.outer(line, line), mode="valid")
        torch.testing.assert_close(
            result.double(), torch.tensor(whole[::2, ::2][:4, :6]), rtol=0, atol=1e-6
        )


@pytest.mark.parametrize("taps", TAPS)
def test_doubling_is_four_times_the_adjoint_of_halving(taps: tuple) -> None:
    large, small = image().double(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    found = Upsampling(taps)(small)
    assert found.shape == large.shape
    one = (found * large).sum()
    other = 4 * (small * Downsampling(taps).double()(large)).sum()
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_the_filter_keeps_the_mean() -> None:
    kernel = make_kernel((1, 3, 3, 1))
    assert float(kernel.sum()) == pytest.approx(1)
    torch.testing.assert_close(kernel[0], torch.tensor([1.0, 3.0, 3.0, 1.0]) / 64)


def test_nothing_touches_a_border_without_padding() -> None:
    ones = torch.ones(1, 1, 10, 10)
    found = Downsampling((1, 3, 3, 1), padded=False)(ones)
    torch.testing.assert_close(found, torch.ones(1, 1, 4, 4))
    assert float(Downsampling((1, 3, 3, 1))(ones)[0, 0, 0, 0]) < 1
