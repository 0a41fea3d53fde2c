from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from genkit.tensors import load

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="session")
def dg_golden() -> dict[str, Tensor]:
    """Time map and gradient term of the reference, on a discriminator in closed form."""
    return load(DATA / "discriminator_guidance.safetensors")[0]


@pytest.fixture(scope="session")
def adm_golden() -> dict[str, Tensor]:
    """Weights of an ADM classifier and of two heads, and the reference's outputs of them."""
    return load(DATA / "dg_adm.safetensors")[0]
