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
