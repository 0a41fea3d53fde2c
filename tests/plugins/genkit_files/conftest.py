from __future__ import annotations

import pytest

from genkit.types import DataSpec
from random_network import save


@pytest.fixture
def images(tmp_path):
    small = {"channels": 4, "channel_mult": (1,), "blocks": 1, "attention": ()}
    spec = DataSpec((3, 4, 4), classes=3)
    return save(tmp_path / "d.safetensors", spec, use="ddpmpp", class_conditional=True, **small)


@pytest.fixture
def points(tmp_path):
    return save(tmp_path / "p.safetensors", DataSpec((2,)), use="mlp", width=8)
