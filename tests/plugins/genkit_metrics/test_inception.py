"""A stand-in has the part of torch-fidelity's interface that is used, with a tiny network."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest
import torch
import torchmetrics.image.fid  # noqa: F401, before a stand-in for its optional part is there
from torch import nn

from genkit.errors import Code, DataError, PluginError
from genkit.interfaces import Subject
from genkit.random import generator
from genkit.types import Batch
from genkit_metrics.extractors import Pixels
from genkit_metrics.frechet import Frechet
from genkit_metrics.inception import Inception

INPUTS = SimpleNamespace(device=torch.device("cpu"))


class FeatureExtractorInceptionV3(nn.Module):
    """Takes and returns what torch-fidelity 0.3 and 0.4 do; its features are means of channels."""

    def __init__(
        self,
        name,
        features_list,
        feature_extractor_weights_path=None,
        feature_extractor_internal_dtype=None,
        **kwargs,
    ):
        super().__init__()
        assert type(name) is str
        assert features_list == ["2048"]
        self.register_buffer("scale", torch.zeros(()))
        # As 0.4 does, whatever the file contains.
        self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))
        self.requires_grad_(False)
        self.eval()

    def forward(self, x):
        if x.dtype != torch.uint8 or x.shape[1] != 3:
            raise ValueError("Expecting image as torch.Tensor with dtype=torch.uint8")
        return (x.flatten(2).float().mean(2) * self.scale,)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A stand-in for torch-fidelity, whose published weights lie in a file."""
    file = tmp_path / "published" / "weights-inception-6726825d.pth"
    file.parent.mkdir()
    torch.save({"scale": torch.tensor(2.0)}, file)
    package = ModuleType("torch_fidelity")
    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = FeatureExtractorInceptionV3
    module.URL_INCEPTION_V3 = file.as_uri()
    package.feature_extractor_inceptionv3 = module
    monkeypatch.setitem(sys.modules, package.__name__, package)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return file


def test_images_are_seen_in_8_bits(published):
    features = Inception(weights=str(published)).bind(INPUTS)
    levels = torch.arange(256.0).reshape(256, 1, 1, 1).expand(256, 3, 4, 4) / 127.5 - 1
    wanted = 2 * torch.arange(256.0)[:, None].expand(256, 3)
    assert torch.equal(features(levels), wanted)
    # Within half a level it is the same level; beyond the range it is the last.
    assert torch.equal(features(levels + 0.49 / 127.5), wanted)
    assert torch.equal(features(torch.full((1, 3, 2, 2), 1.3)), torch.full((1, 3), 510.0))
    assert torch.equal(features(torch.full((1, 3, 2, 2), -1.3)), torch.zeros(1, 3))


def test_grey_images_have_three_equal_channels(published):
    grey = torch.rand(5, 1, 4, 4) * 2 - 1
    features = Inception(weights=str(published)).bind(INPUTS)
    assert torch.equal(features(grey), features(grey.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("shape", [(2,), (4, 8, 8)])
def test_other_items_are_refused(published, shape):
    features = Inception(weights=str(published)).bind(INPUTS)
    with pytest.raises(DataError, match="3 channels, or grey ones, not at items of shape"):
        features(torch.zeros(3, *shape))


def test_a_local_file_is_used_and_named_by_its_hash(published, fid_extra, tmp_path):
    own = tmp_path / "own.pth"
    torch.save({"scale": torch.tensor(3.0)}, own)
    extractor = Inception(weights=str(own))
    assert not list(extractor.check({}))
    assert torch.equal(
        extractor.bind(INPUTS)(torch.ones(1, 3, 2, 2)), torch.full((1, 3), 3 * 255.0)
    )
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert extractor.identity(INPUTS) == f"inception sha256:{digest}"
    assert not (tmp_path / "cache").exists()


def test_another_file_is_another_version(published):
    extractor = Inception(weights=str(published))
    before = extractor.version()
    assert before == extractor.version() != ""
    torch.save({"scale": torch.tensor(3.0)}, published)
    assert extractor.version() != before
    published.unlink()
    with pytest.raises(DataError, match="No such file"):
        extractor.version()
    assert Inception().version() == ""  # nothing is downloaded for it


def test_without_a_file_the_published_one_is_downloaded_once(published, tmp_path):
    extractor = Inception()
    digest = hashlib.sha256(published.read_bytes()).hexdigest()
    assert extractor.identity(INPUTS) == f"inception sha256:{digest}"
    published.unlink()
    features = extractor.bind(INPUTS)
    assert torch.equal(features(torch.ones(1, 3, 2, 2)), torch.full((1, 3), 510.0))
    cached = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert cached == [published.name]


def test_a_download_that_fails_says_what_to_do(published):
    published.unlink()
    with pytest.raises(DataError, match=r"cannot be downloaded: .* weights = "):
        Inception().bind(INPUTS)


def test_a_file_that_is_missing_is_told_before_the_run(published, fid_extra):
    (problem,) = Inception(weights="nowhere.pth").check({})
    assert problem.key == ("weights",)
    assert (problem.key, problem.code) == (("weights",), Code.DATA)
    assert "nowhere.pth" in problem.reason


def test_an_extra_that_is_missing_is_told_before_the_run(monkeypatch):
    found = {"torch_fidelity": ModuleSpec("torch_fidelity", None)}
    monkeypatch.setattr("genkit.parts.packages.find_spec", found.get)
    (problem,) = Inception().check({})
    assert problem.code == Code.MISSING_PACKAGE
    assert "torchvision" in problem.reason
    assert "pip install 'genkit-diffusion[fid]'" in problem.hint


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("content", [b"", b"no weights", {"other": torch.zeros(3)}, [1, 2]])
def test_a_file_of_something_else_is_refused(published, content):
    if isinstance(content, bytes):
        published.write_bytes(content)
    else:
        torch.save(content, published)
    with pytest.raises(DataError, match="no weights of torch-fidelity"):
        Inception(weights=str(published)).bind(INPUTS)


def test_nothing_in_a_file_is_executed(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"scale": Hostile()}, published)
    with pytest.raises(DataError, match="no weights"):
        Inception(weights=str(published)).bind(INPUTS)
    assert not (tmp_path / "owned").exists()
    torch.load(published, weights_only=False)  # the file is what it seems
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("missing", ["torch_fidelity", "torchvision"])
def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, missing):
    if missing == "torchvision":  # which torch-fidelity imports
        for name in [name for name in sys.modules if name.split(".")[0] == "torch_fidelity"]:
            monkeypatch.delitem(sys.modules, name)
        (tmp_path / "torch_fidelity").mkdir()
        (tmp_path / "torch_fidelity" / "__init__.py").write_text("import torchvision\n")
        monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    install = r"pip install 'genkit-diffusion\[fid\]'"
    with pytest.raises(PluginError, match=rf"{missing}.*{install}"):
        Inception(weights="any.pth").bind(INPUTS)


def test_over_its_features_the_distance_is_called_fid(published, fake_context):
    draw = generator(0, "images")
    samples, real = (torch.rand(40, 3, 4, 4, generator=draw) * 2 - 1 for _ in range(2))
    subject = Subject(samples=Batch(samples), reference=Batch(real), denoiser=nn.Identity())
    found = Frechet(extractor=Inception(weights=str(published))).measure(subject, fake_context())
    assert set(found.scores) == {"fid"}
    assert found.facts["extractor"].startswith("inception sha256:")
    assert found.facts["features"] == "3"
    assert set(Frechet(extractor=Pixels()).measure(subject, fake_context()).scores) == {"frechet"}


def test_real_images_in_8_bits_are_the_same_as_decoded_ones(published, fake_context):
    draw = generator(0, "images")
    stored = torch.randint(256, (30, 3, 4, 4), generator=draw, dtype=torch.uint8)
    samples = Batch(torch.rand(40, 3, 4, 4, generator=draw) * 2 - 1)
    metric = Frechet(extractor=Inception(weights=str(published)))
    first, second = (
        metric.measure(Subject(samples, Batch(real), nn.Identity()), fake_context()).scores
        for real in (stored, stored.float() / 127.5 - 1)
    )
    assert first == second


def test_torchmetrics_that_does_not_import_is_told(monkeypatch, fake_context):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    items = Batch(torch.rand(4, 3, 2, 2))
    with pytest.raises(PluginError, match="torch-fidelity without torchvision"):
        Frechet(extractor=Pixels()).measure(Subject(items, items, nn.Identity()), fake_context())


def test_torch_fidelity_is_imported_only_where_it_is_used():
    code = (
        "import sys; sys.modules['torch_fidelity'] = None; import genkit_metrics.inception as i; "
        "i.Inception(); from genkit.plugin.manager import load_plugins; load_plugins()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
