from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from genkit.errors import Code, DataError
from genkit.interfaces import Trained
from genkit.networks import NetworkInputs
from genkit.parts.vp_sde import VpSde, vp_mean
from genkit.pickles import read_state_dict
from genkit.testing import check_classifier, check_component, check_importer
from genkit.types import DataSpec
from genkit_dg.adm_classifier import AdmClassifier
from genkit_dg.adm_encoder import AdmEncoder
from genkit_dg.adm_importer import AdmClassifierImporter
from genkit_dg.adm_names import rename
from genkit_dg.encoder_discriminator import AdmClassifierDiscriminator
from published_adm import write_published
from raising import raises_code

HEADS = {"unconditional": 0, "conditional": 1000}


def close(found, wanted):
    """Whether two tensors agree to 1e-5 of the largest value."""
    assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def weights_of(golden, part):
    """Return the weights of a network of the golden file, by their published names."""
    names = [name for name in golden if name.startswith(f"{part}.")]
    return {name.removeprefix(f"{part}."): golden[name].float() for name in names}


@pytest.fixture(scope="module")
def published(adm_golden, tmp_path_factory):
    """A file as guided-diffusion publishes its classifiers."""
    path = tmp_path_factory.mktemp("published") / "16x16_classifier.pt"
    torch.save(weights_of(adm_golden, "extractor"), path)
    return path


@pytest.fixture(scope="module")
def classifier(published):
    found = AdmClassifierImporter().read(published)
    module = found.network.build(found.spec)
    module.load_state_dict(found.weights)
    return Trained(found.network, found.spec, module.eval().requires_grad_(False))


def test_features_and_logits_are_those_of_the_reference(adm_golden, classifier):
    encoder = classifier.module.encoder
    with torch.no_grad():
        features = encoder.features(adm_golden["x"], adm_golden["time"])
    close(features, adm_golden["features"])
    close(encoder.head(features), adm_golden["class_logits"])


@pytest.mark.parametrize(("kind", "classes"), HEADS.items())
def test_logits_of_a_head_and_their_gradient_are_those_of_the_reference(
    adm_golden, classifier, kind, classes
):
    inputs = NetworkInputs(torch.device("cpu"), given={"classifier": classifier})
    settings = AdmClassifierDiscriminator(
        classifier="classifier", channels=64, blocks=1, class_conditional=classes > 0
    )
    network = settings.bind(inputs).build(DataSpec((3, 16, 16), classes=classes, realness=True))
    network.head.load_state_dict(rename(weights_of(adm_golden, f"head_{kind}")))
    time = adm_golden["time"]
    labels = adm_golden["labels"] if classes else None
    point = adm_golden["x"].clone().requires_grad_()
    features = classifier.module.encoder.features(point, time)
    logit = network.eval().head(features, time, labels).squeeze(1)
    close(logit, adm_golden[f"logit.{kind}"])
    (gradient,) = torch.autograd.grad(logit.sum(), point)
    close(gradient, adm_golden[f"gradient.{kind}"])
    # The whole discriminator, called with the noise levels and images of a denoiser. Its time is
    # rounded once more, and a phase of up to 999 amplifies that.
    sigma = VpSde().sigma(time.double()).float()
    scaled = adm_golden["x"] / vp_mean(sigma)[:, None, None, None]
    found = network(scaled, sigma, labels)
    assert_close(found, adm_golden[f"logit.{kind}"], rtol=1e-3, atol=1e-3)


def test_full_networks_have_as_many_parameters_as_the_published_ones():
    with torch.device("meta"):
        classifier = AdmClassifier().build(DataSpec((3, 32, 32), classes=1000))
        trained = Trained(AdmClassifier(), DataSpec((3, 32, 32), classes=1000), classifier)
        inputs = NetworkInputs(torch.device("meta"), given={"c": trained})
        heads = [
            AdmClassifierDiscriminator(classifier="c", class_conditional=classes > 0)
            .bind(inputs)
            .build(DataSpec((3, 32, 32), classes=classes))
            for classes in HEADS.values()
        ]
    counts = [sum(p.numel() for p in m.parameters()) for m in (classifier, *heads)]
    assert counts == [47_771_112, 2_883_841, 3_395_841]


def test_laws_of_the_classifier_hold():
    check_component(AdmClassifier)
    settings = AdmClassifier(channels=64, multipliers=(1,), blocks=1)
    check_classifier(settings, DataSpec((3, 8, 8), classes=4))


def test_a_classifier_of_the_cosine_schedule_is_refused(tmp_path):
    small = AdmClassifier(channels=64, multipliers=(1,), blocks=1, attention=(4,))
    for size in (32, 64):
        write_published(tmp_path / f"{size}.pt", small, size)
    assert AdmClassifierImporter().read(tmp_path / "32.pt").spec.shape == (3, 32, 32)
    with raises_code(DataError, Code.WRONG_KIND, "cosine"):
        AdmClassifierImporter().read(tmp_path / "64.pt")


def test_laws_of_the_importer_hold(tmp_path):
    path = tmp_path / "4x4_classifier.pt"
    write_published(path, AdmClassifier(channels=64, multipliers=(1,), blocks=1, attention=(4,)), 4)
    check_importer(AdmClassifierImporter(), path)


def test_state_dictionaries_are_read_as_torch_reads_them(published):
    arrays = read_state_dict(published)
    wanted = torch.load(published, weights_only=True)
    assert list(arrays) == list(wanted)
    assert all(torch.equal(torch.from_numpy(arrays[name]), wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([torch.zeros(2)], Code.WRONG_TYPE),
        ({1: torch.zeros(2)}, Code.INVALID_NAME),
        ({"a": 1}, Code.WRONG_KIND),
    ],
)
def test_a_file_of_something_else_is_no_state_dictionary(tmp_path, content, code):
    path = tmp_path / "file.pt"
    torch.save(content, path)
    with raises_code(DataError, code, "file.pt"):
        read_state_dict(path)


def test_an_older_format_of_torch_is_refused(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=False)
    with raises_code(DataError, Code.WRONG_KIND, "1.6"):
        read_state_dict(path)


@pytest.mark.parametrize(
    "weights",
    [
        {"input_blocks.0.0.weight": torch.zeros(64, 3, 3, 3)},
        {"output_blocks.0.0.weight": torch.zeros(1)},
        {"out.2.c_proj.weight": torch.zeros(3)},
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, weights):
    path = tmp_path / "file.pt"
    torch.save(weights, path)
    with raises_code(DataError, Code.WRONG_KIND, "file.pt"):
        AdmClassifierImporter().read(path)


@pytest.mark.parametrize(
    ("shape", "change", "code"),
    [
        ((3, 8, 8), {"channels": 96}, Code.OUT_OF_RANGE),
        ((3, 9, 8), {"multipliers": (1, 2)}, Code.WRONG_SHAPE),
    ],
)
def test_sizes_that_no_encoder_has_are_refused(shape, change, code):
    settings = {"channels": 64, "multipliers": (1,), "blocks": 1, "attention": (8,), "outputs": 1}
    with raises_code(DataError, code):
        AdmEncoder(shape, **(settings | change))


@pytest.mark.parametrize("spec", [DataSpec((2,), classes=2), DataSpec((3, 8, 8))])
def test_a_classifier_needs_labelled_images(spec):
    with raises_code(DataError, Code.WRONG_SHAPE):
        AdmClassifier().build(spec)


def test_settings_without_meaning_are_refused():
    assert not list(AdmClassifier().check({}))
    found = AdmClassifier(multipliers=(), class_conditional=True).check({})
    assert [problem.code for problem in found] == [Code.WRONG_LENGTH, Code.CONFLICT]
