"""The network against torch-fidelity's: by golden vectors, and live where it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from genkit.random import generator
from genkit_metrics.inception import Inception, InceptionFeatures
from genkit_metrics.inception_v3 import InceptionV3, resize

SCRIPT = Path(__file__).with_name("make_inception_golden.py")


def script():
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = script()


@pytest.fixture(scope="module")
def weights():
    with torch.device("meta"):
        like = InceptionV3().state_dict()
    return golden.random_weights(like)


@pytest.fixture(scope="module")
def extractor(weights):
    with torch.device("meta"):
        network = InceptionV3()
    network.load_state_dict(weights, assign=True)
    return InceptionFeatures(network, Inception(gray="repeat"))


def outputs(extractor, image):
    """Return features, and logits without and with bias, of a uint8 image."""
    features = extractor(image.float() / 127.5 - 1)
    return features, extractor.head(features), extractor.network.fc(features)


def difference(found, wanted):
    """Return the greatest difference, relative to the greatest value."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("name", golden.SHAPES)
def test_equals_the_golden_vectors(extractor, name):
    vectors = load_file(golden.GOLDEN)
    found = golden.selected(*outputs(extractor, golden.random_image(name, golden.SHAPES[name])))
    for kind, values in found.items():
        assert difference(values, vectors[f"{name}.{kind}"]) < 1e-5


@pytest.mark.parametrize(
    "shape", [(3, 32, 32), (1, 32, 32), (3, 64, 64), (1, 28, 28), (3, 171, 96), (3, 299, 299)]
)
def test_equals_torch_fidelity(extractor, weights, shape):
    pytest.importorskip("torch_fidelity", reason="compares with torch-fidelity, not installed")
    image = golden.random_image("live", shape)
    for found, wanted in zip(
        outputs(extractor, image), golden.torch_fidelity(weights)(image), strict=True
    ):
        assert difference(found, wanted) < 1e-5


@pytest.mark.parametrize(("height", "width", "size"), [(7, 5, 12), (12, 9, 5), (6, 6, 6)])
def test_resizing_is_linear_between_the_pixels_before_and_behind(height, width, size):
    images = torch.rand(2, 3, height, width, generator=generator(0, "images"))
    found = resize(images, size)
    for i in range(size):
        for k in range(size):
            y, x = i * height / size, k * width / size
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = images[..., top, left] * (1 - x + left) + images[..., top, right] * (x - left)
            lower = images[..., bottom, left] * (1 - x + left)
            lower = lower + images[..., bottom, right] * (x - left)
            wanted = upper * (1 - y + top) + lower * (y - top)
            torch.testing.assert_close(found[..., i, k], wanted)
    if size == height == width:
        assert torch.equal(found, images)
    else:
        assert not torch.allclose(found, F.interpolate(images, (size, size), mode="bilinear"))
