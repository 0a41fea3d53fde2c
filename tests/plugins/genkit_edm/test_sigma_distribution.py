from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import torch

from genkit.errors import SettingError
from genkit_edm.edm import LogNormal


@pytest.mark.parametrize(("p_mean", "p_std"), [(-1.2, 1.2), (0.4, 2.0)])
def test_quantiles_are_those_of_scipy(p_mean: float, p_std: float) -> None:
    u = np.concatenate([[1e-15, 1e-9], np.linspace(0.01, 0.99, 21), [1 - 1e-9]])
    expected = scipy.stats.lognorm(s=p_std, scale=np.exp(p_mean)).ppf(u)
    found = LogNormal(p_mean=p_mean, p_std=p_std).quantile(torch.from_numpy(u))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_the_median_is_exp_p_mean() -> None:
    median = LogNormal().quantile(torch.tensor([0.5], dtype=torch.float64))
    assert float(median) == pytest.approx(np.exp(-1.2), rel=1e-14)


def test_float32_fractions_are_widened() -> None:
    assert LogNormal().quantile(torch.tensor([0.25])).dtype == torch.float64


def test_p_std_must_be_positive() -> None:
    with pytest.raises(SettingError, match="p_std"):
        LogNormal(p_std=0.0)
