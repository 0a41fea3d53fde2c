"""``genkit stats``: the file, networks by their paths, and mistakes."""

from __future__ import annotations

import shutil

import pytest
import torch

from genkit.artifacts.statistics import load_statistics
from genkit_data.handwritten import Digits
from genkit_metrics.extractors import SHIPPED

CLASSIFIER = '{{ use = "classifier", {} = "{}" }}'


def test_the_statistics_are_those_of_the_features(genkit_, tmp_path):
    code, out, err = genkit_("stats", "digits", tmp_path / "s.safetensors", "--extractor", "pixels")
    assert (code, err) == (0, "")
    found = load_statistics(tmp_path / "s.safetensors")["frechet_pixels"]
    data = Digits().load(None).data.flatten(1).double()
    # Images are rounded to 8 bits, by which a value changes by 1/255 at most.
    torch.testing.assert_close(torch.as_tensor(found.mean), data.mean(0), rtol=0, atol=1 / 255)
    torch.testing.assert_close(torch.as_tensor(found.covariance), data.T.cov(), rtol=0, atol=0.005)
    assert f"{len(data):,} items" in out


def test_a_network_is_given_by_the_path_of_its_file(genkit_, tmp_path):
    copied = shutil.copy(SHIPPED["digits"], tmp_path / "judge.safetensors")
    found = []
    for setting, value in (("file", "digits"), ("classifier", copied)):
        path, extractor = tmp_path / f"{setting}.safetensors", CLASSIFIER.format(setting, value)
        code, _, err = genkit_("stats", "digits", path, "--extractor", extractor, "--device", "cpu")
        assert (code, err) == (0, "")
        found.append(load_statistics(path)["frechet_classifier"])
    assert found[0].extractor == found[1].extractor
    torch.testing.assert_close(*(torch.as_tensor(each.mean) for each in found))


@pytest.mark.parametrize(
    ("data", "extractor", "said"),
    [
        ("digitz", "pixels", 'did you mean "digits"'),
        ('{ use = "moons", items = 0 }', "pixels", "dataset.items: "),
        ("digits", "pixelz", 'did you mean "pixels"'),
        ("digits", '{ use = "pixels", x = 1 }', "extractor.x: "),
        ("digits", CLASSIFIER.format("classifier", "none.safetensors"), "none.safetensors: "),
        ("digits", "{ use = ", "--extractor must"),
    ],
)
def test_mistakes(genkit_, tmp_path, data, extractor, said):
    file = tmp_path / "s.safetensors"
    code, out, err = genkit_("stats", data, file, "--extractor", extractor, "--device", "cpu")
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err
    assert not file.exists()
