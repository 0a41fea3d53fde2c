"""How a network for photographs is given images, on a network that returns what it is given."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from genkit.errors import Code, DataError, SettingError
from genkit.plugin.manager import load_plugins
from genkit.random import generator
from genkit.recipe.decode import checked
from genkit.testing import check_extractor
from genkit.types import DataSpec
from genkit_metrics.image_network import BATCH, ImageFeatures, ImageNetwork
from raising import raises_code


class Flat(nn.Module):
    """Returns the pixels; keeps how many images it was given and with which switches."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, pixels):
        switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul
        self.calls.append((len(pixels), *(switch.fp32_precision for switch in switches)))
        return pixels.flatten(1)


@dataclass(frozen=True, kw_only=True)
class Plain(ImageNetwork):
    """The pixels."""

    def bind(self, inputs):
        return ImageFeatures(Flat(), self).to(inputs.device)

    def identity(self, inputs):
        return f"plain {self.precision}"


def features(**settings):
    return ImageFeatures(Flat(), Plain(**settings))


@pytest.mark.parametrize(("gray", "channels"), [(None, 3), ("repeat", 3), ("repeat", 1)])
def test_laws_hold(gray, channels):
    check_extractor(Plain(gray=gray), DataSpec((channels, 8, 8)))


def test_images_are_seen_in_8_bits():
    levels = torch.arange(256.0).reshape(256, 1, 1, 1).expand(256, 3, 4, 4) / 127.5 - 1
    wanted = torch.arange(256.0)[:, None].expand(256, 48)
    assert torch.equal(features()(levels), wanted)
    # Within half a level it is the same level; beyond the range it is the last.
    assert torch.equal(features()(levels + 0.49 / 127.5), wanted)
    assert torch.equal(features()(torch.full((1, 3, 2, 2), 1.3)), torch.full((1, 12), 255.0))
    assert torch.equal(features()(torch.full((1, 3, 2, 2), -1.3)), torch.zeros(1, 12))


def test_gray_images_have_three_equal_channels():
    gray = torch.rand(5, 1, 4, 4, generator=generator(0)) * 2 - 1
    found = features(gray="repeat")
    assert torch.equal(found(gray), found(gray.expand(-1, 3, -1, -1)))


def test_gray_data_needs_the_setting():
    (problem,) = Plain().check_items(DataSpec((1, 8, 8)), {})
    assert (problem.key, problem.code) == (("gray",), Code.MISSING_KEY)
    assert not list(Plain(gray="repeat").check_items(DataSpec((1, 8, 8)), {}))
    assert not list(Plain().check_items(DataSpec((3, 8, 8)), {}))
    with raises_code(DataError, Code.MISSING_KEY, "gray"):
        features()(torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize("shape", [(2,), (4, 8, 8), (2, 8, 8)])
def test_other_items_are_refused(shape):
    (problem,) = Plain(gray="repeat").check_items(DataSpec(shape), {})
    assert (problem.key, problem.code) == ((), Code.WRONG_SHAPE)
    with raises_code(DataError, Code.WRONG_SHAPE):
        features(gray="repeat")(torch.zeros(3, *shape))


def test_a_network_is_given_a_part_at_a_time():
    module = features()
    images = torch.rand(BATCH + 3, 3, 2, 2, generator=generator(0)) * 2 - 1
    assert len(module(images)) == BATCH + 3
    assert [count for count, *_ in module.network.calls] == [BATCH, 3]
    assert not module(images.requires_grad_()).requires_grad


@pytest.mark.parametrize(
    ("precision", "switch"), [("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")]
)
def test_tf32_is_used_where_it_is_asked_for_and_nowhere_else(precision, switch):
    module = features(precision=precision)
    switches = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [each.fp32_precision for each in switches]
    try:
        for each in switches:
            each.fp32_precision = "ieee" if switch == "tf32" else "tf32"
        outside = [each.fp32_precision for each in switches]
        module(torch.zeros(1, 3, 2, 2))
        assert [each.fp32_precision for each in switches] == outside
    finally:
        for each, value in zip(switches, before, strict=True):
            each.fp32_precision = value
    assert module.network.calls == [(1, switch, switch)]


class Product(nn.Module):
    """A matrix product, whose type is that of the arithmetic."""

    def __init__(self):
        super().__init__()
        weights = torch.randn(12, 8, generator=generator(0, "weights"))
        self.weights = nn.Parameter(weights)

    def forward(self, pixels):
        self.found = pixels.flatten(1) @ self.weights
        return self.found


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_16_bits_are_used_where_they_are_asked_for(precision):
    module = ImageFeatures(Product(), Plain(precision=precision))
    found = module(torch.rand(4, 3, 2, 2, generator=generator(0)) * 2 - 1)
    assert module.network.found.dtype == getattr(torch, precision)
    assert found.dtype == torch.float32


def test_the_old_key_of_gray_images_names_the_new_one():
    with raises_code(SettingError, Code.RENAMED_KEY, "grey", "gray ="):
        checked(load_plugins().registry, "extractor", {"use": "inception", "grey": "repeat"})
