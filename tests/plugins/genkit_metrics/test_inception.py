"""The file of the weights: verified, downloaded once, never run. A tiny network stands in."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from genkit.errors import Code, DataError
from genkit.parts.precision import multiplying_in
from genkit.random import generator
from genkit.testing import check_extractor, subject_of
from genkit.types import Batch, DataSpec
from genkit_metrics import inception
from genkit_metrics.extractors import ClassifierFeaturesModule
from genkit_metrics.frechet import Frechet
from genkit_metrics.inception import Inception
from raising import raises_code

INPUTS = SimpleNamespace(device=torch.device("cpu"))


class Tiny(nn.Module):
    """Means of channels, and a last layer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, pixels):
        return pixels.mean((2, 3))


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A file of weights in the place of the published one."""
    file = tmp_path / "published" / inception.NAME
    file.parent.mkdir()
    weights = {
        "fc.weight": torch.randn(5, 3, generator=generator(0, "weight")),
        "fc.bias": torch.ones(5),
    }
    torch.save(weights, file)
    monkeypatch.setattr(inception, "InceptionV3", Tiny)
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setattr(inception, "URL", f"http://127.0.0.1:9/{inception.NAME}")  # nobody answers
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return file


@pytest.fixture
def served(published, monkeypatch):
    """The addresses that were asked for, from a server that has the file."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    handler = functools.partial(Handler, directory=published.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{inception.NAME}"
        monkeypatch.setattr(inception, "URL", url)
        yield asked
        server.shutdown()


def test_laws_hold(published):
    check_extractor(Inception(weights=str(published)), DataSpec((3, 8, 8)))


def test_the_name_of_the_file_is_the_start_of_its_checksum():
    assert inception.SHA256.startswith(inception.NAME.removesuffix(".pth").rpartition("-")[2])


def test_a_local_file_is_used(published, tmp_path):
    extractor = Inception(weights=str(published))
    assert not list(extractor.check({}))
    module = extractor.bind(INPUTS)
    assert torch.equal(module(torch.ones(1, 3, 2, 2)), torch.full((1, 3), 255.0))
    assert extractor.identity(INPUTS) == f"inception sha256:{inception.SHA256} float32"
    assert Inception(precision="tf32").identity(INPUTS).endswith(" tf32")
    assert not (tmp_path / "cache").exists()


def test_logits_follow_from_features_without_bias(published):
    module = Inception(weights=str(published)).bind(INPUTS)
    assert isinstance(module, ClassifierFeaturesModule)
    features = torch.randn(4, 3, generator=generator(0, "features"))
    fc = module.network.fc
    torch.testing.assert_close(module.head(features), fc(features) - fc.bias)


def test_logits_are_exact_where_products_are_in_tf32(published, monkeypatch):
    products, seen = torch.backends.cuda.matmul, []

    def linear(features, weight):
        seen.append(products.fp32_precision)
        return features @ weight.T

    monkeypatch.setattr(inception.F, "linear", linear)
    module = Inception(weights=str(published)).bind(INPUTS)
    with multiplying_in("tf32", products=True):
        module.head(torch.zeros(1, 3))
        assert products.fp32_precision == "tf32"
    assert seen == ["ieee"]


def test_global_random_numbers_are_left_alone(published):
    before = torch.get_rng_state()
    Inception(weights=str(published)).bind(INPUTS)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_file_the_published_one_is_downloaded_once(published, served, tmp_path):
    for _ in range(2):
        features = Inception().bind(INPUTS)
    assert torch.equal(features(torch.ones(1, 3, 2, 2)), torch.full((1, 3), 255.0))
    assert served == [f"/{inception.NAME}"]
    cached = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cached == [inception.NAME]


def test_a_download_of_another_file_is_refused(published, served, tmp_path):
    published.write_bytes(b"an error page")
    with raises_code(DataError, Code.DOWNLOAD, "weights"):
        Inception().bind(INPUTS)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_download_that_fails_says_what_to_do(published):
    with raises_code(DataError, Code.DOWNLOAD, inception.URL, "weights"):
        Inception().bind(INPUTS)


def test_a_file_that_is_missing_or_another_is_refused_before_the_run(published):
    problems = [*Inception(weights="nowhere.pth").check({})]
    published.write_bytes(b"no weights")
    problems += Inception(weights=str(published)).check({})
    problems += Inception(weights="~nobody-of-this-name/file").check({})
    assert [problem.key for problem in problems] == [("weights",)] * 3
    codes = [Code.NOT_FOUND, Code.WRONG_KIND, Code.NOT_FOUND]
    assert [problem.code for problem in problems] == codes


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def test_nothing_in_another_file_is_executed(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"scale": Hostile()}, published)
    with raises_code(DataError, Code.WRONG_KIND, published):
        Inception(weights=str(published)).bind(INPUTS)
    assert not (tmp_path / "owned").exists()
    torch.load(published, weights_only=False)  # the file is what it seems
    assert (tmp_path / "owned").exists()


def test_a_file_that_vanished_is_refused(published):
    published.unlink()
    with raises_code(DataError, Code.IO_ERROR, published):
        Inception(weights=str(published)).bind(INPUTS)


def test_over_its_features_the_distance_is_called_fid(published, fake_context):
    draw = generator(0, "images")
    samples, real = (torch.rand(40, 3, 4, 4, generator=draw) * 2 - 1 for _ in range(2))
    subject = subject_of(fake_context(), Batch(samples), Batch(real))
    found = Frechet(extractor=Inception(weights=str(published))).measure(subject, fake_context())
    assert set(found.scores) == {"fid"}
    assert found.facts["features"] == "3"


def test_real_images_in_8_bits_are_the_same_as_decoded_ones(published, fake_context):
    draw = generator(0, "images")
    stored = torch.randint(256, (30, 3, 4, 4), generator=draw, dtype=torch.uint8)
    samples = Batch(torch.rand(40, 3, 4, 4, generator=draw) * 2 - 1)
    metric = Frechet(extractor=Inception(weights=str(published)))
    first, second = (
        metric.measure(subject_of(fake_context(), samples, Batch(real)), fake_context()).scores
        for real in (stored, stored.float() / 127.5 - 1)
    )
    assert first == second
