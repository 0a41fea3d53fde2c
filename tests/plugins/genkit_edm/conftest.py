from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
from torch import Tensor

DATA = Path(__file__).parents[2] / "data"


def read(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safetensors.safe_open(DATA / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, file.metadata()


@pytest.fixture(scope="session")
def edm_golden() -> Callable[[str], tuple[dict[str, Tensor], dict[str, str]]]:
    """Tensors and metadata of the reference's inputs and outputs, by the name of the file."""
    return read
