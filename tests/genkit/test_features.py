"""Features: each computed once, of images of 8 bits, kept for later runs; and scores of sets."""

from __future__ import annotations

import json
import pickle
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from scipy.linalg import hadamard
from torch import nn

from genkit import tensors
from genkit.artifacts import Samples
from genkit.artifacts.statistics import Statistics, load_statistics, save_statistics
from genkit.errors import Code, DataError
from genkit.features import (
    DatasetReference,
    Extractors,
    FileContext,
    StageFeatures,
    StatisticsReference,
)
from genkit.interfaces import Dataset, Extractor, Metric
from genkit.parts.precision import multiplying_in
from genkit.plugin.manager import load_plugins
from genkit.settings import setting
from genkit.types import Batch, DataSpec, Measurement
from genkit_stages.evaluate import Evaluate
from raising import raises_code


class Counting(nn.Module):
    """Features with a weight, which note the items that pass."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x):
        Counted.seen.append(x.clone())
        return x.flatten(1)


@dataclass(frozen=True, kw_only=True)
class Counted(Extractor):
    """The pixels, with a note of what passes."""

    seen: ClassVar[list[torch.Tensor]] = []
    label = "counted"

    def bind(self, inputs):
        return Counting()

    def identity(self, inputs):
        return "counted sha256:0"


@dataclass(frozen=True, kw_only=True)
class First(Metric):
    """The mean of the first feature, of samples and of the reference."""

    extractor: Extractor = setting(doc="features")
    name: str = setting("first", doc="name of the score")

    @property
    def scores(self):
        return self.name, f"{self.name}_real"

    def measure(self, subject, context):
        made = subject.features.of_samples(self.extractor)
        real = subject.features.of_reference(self.extractor)
        means = float(made[:, 0].mean()), float(real[:, 0].mean())
        return Measurement(scores=dict(zip(self.scores, means, strict=True)))


@dataclass(frozen=True, kw_only=True)
class Bytes(Dataset):
    """Eight images of 8 bits."""

    changed: int = setting(0, doc="value of the first pixel")
    path: str = setting("here", doc="where the images lie")

    def spec(self):
        return DataSpec((1, 1, 2))

    def load(self, inputs):
        images = torch.arange(16, dtype=torch.uint8).reshape(8, 1, 1, 2)
        images[0, 0, 0, 0] = self.changed
        return Batch(images)


@dataclass(frozen=True)
class Here(FileContext):
    """A context outside a run that describes components which no plugin registers."""

    warnings: list[str] = field(default_factory=list)

    def describe(self, component):
        return {"use": type(component).__name__, **asdict(component)}

    def stop_requested(self):
        return False


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Counted.seen.clear()
    warnings = []
    return Here(registry=load_plugins().registry, warn=warnings.append, warnings=warnings)


def scorer(here, *metrics, data=None, **settings):
    """Return what scores with metrics, as a new run would begin with it."""
    stage = Evaluate(samples="samples", data=data or Bytes(), metrics=metrics, **settings)
    return stage.scorer(here)


def images(count=6, seed=0):
    draws = torch.Generator().manual_seed(seed)
    batch = Batch(torch.randn(count, 1, 1, 2, generator=draws))
    return Samples(batch, nfe=3, facts={"seeds": "0", "sampler": "normal"})


def passes():
    """Return how many items each pass had, and forget them."""
    counts = [len(batch) for batch in Counted.seen]
    Counted.seen.clear()
    return counts


METRICS = [First(extractor=Counted(), name=name) for name in "abc"]


def test_reference_and_samples_pass_once_for_all_metrics_sets_and_cells(here):
    first = scorer(here, *METRICS, sets=3)
    for seed in range(6):  # the cells of a sweep
        first.measure(images(seed=seed))
    assert sorted(passes()) == [6] * 6 + [8]
    scorer(here, *METRICS).measure(images())
    assert passes() == [6]
    scorer(here, *METRICS, data=Bytes(changed=9)).measure(images())
    assert sorted(passes()) == [6, 8]


def test_equal_items_are_one_reference_wherever_they_lie(here):
    found = [scorer(here, METRICS[0], data=Bytes(path=path)).measure(images()) for path in "ab"]
    assert found[0].facts == found[1].facts
    assert sorted(passes()) == [6, 6, 8]
    changed = scorer(here, METRICS[0], data=Bytes(changed=9)).measure(images())
    assert changed.facts["a"]["data"] != found[0].facts["a"]["data"]


@pytest.mark.parametrize("version", ["other code of the network", ""])
def test_features_are_computed_again_where_the_extractor_depends_on_something_else(
    here, monkeypatch, version
):
    scorer(here, METRICS[0]).measure(images())
    passes()
    monkeypatch.setattr(Counted, "version", lambda self: version)
    scorer(here, METRICS[0]).measure(images())
    assert sorted(passes()) == ([6, 8] if version else [6])


class Rounding(nn.Module):
    """Notes whether convolutions are exact on NVIDIA GPUs, in features and logits."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(torch.backends.cudnn.conv.fp32_precision)
        return x.flatten(1)

    head = forward


def test_features_and_logits_are_exact_on_a_gpu_too(here, monkeypatch):
    module = Rounding()
    monkeypatch.setattr(Counted, "bind", lambda self, inputs: module)
    features = StageFeatures(Extractors(here), images().batch.data, reference=None)
    with multiplying_in("tf32"):  # the default of PyTorch
        features.logits(Counted(), features.of_samples(Counted()))
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
    assert module.seen == ["ieee", "ieee"]


def test_extractors_see_8_bits_and_scores_equal_those_of_rounded_samples(here):
    raw = torch.randn(6, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    levels = np.floor(np.clip(raw.numpy() * 127.5 + 128, 0, 255))
    rounded = torch.from_numpy(levels / 127.5 - 1).float()
    scores = [
        scorer(here, METRICS[0]).measure(Samples(Batch(items), nfe=1)).scores
        for items in (raw, rounded)
    ]
    assert scores[0] == scores[1]
    torch.testing.assert_close(Counted.seen[0], rounded)
    assert raw.abs().max() > 1 >= Counted.seen[0].abs().max()


def test_features_are_read_from_the_cache_without_a_warning(here):
    wanted = scorer(here, METRICS[0]).measure(images()).scores
    passes()
    assert scorer(here, METRICS[0]).measure(images()).scores == wanted
    assert passes() == [6]  # of the samples alone
    assert here.warnings == []


@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: c[:-1] + bytes([c[-1] ^ 1])])
def test_a_damaged_file_of_features_is_written_anew_with_a_warning(here, tmp_path, damage):
    wanted = scorer(here, METRICS[0]).measure(images()).scores
    (file,) = (tmp_path / "cache").rglob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    passes()
    assert scorer(here, METRICS[0]).measure(images()).scores == wanted
    assert sorted(passes()) == [6, 8]
    assert file.name in here.warnings[0]
    assert file.read_bytes() == whole


def test_sets_are_disjoint_ranges_with_mean_deviation_and_minimum(here):
    samples = images(6)
    found = scorer(here, METRICS[0], sets=3).measure(samples)
    pixels = samples.batch.data.flatten(1)[:, 0].float() / 127.5 - 1
    values = pixels.reshape(3, 2).mean(1).numpy()
    assert found.scores["a"] == pytest.approx(values.mean(), rel=1e-6)
    assert found.scores["a_std"] == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert found.scores["a_min"] == pytest.approx(values.min(), rel=1e-6)
    assert found.facts["a"]["sets"] == "3"
    assert found.facts["a"]["samples"] == "2"
    assert found.facts["a"]["values"] == ", ".join(f"{value:.6g}" for value in values)
    assert found.facts["a"]["data"].startswith("Bytes sha256:")


def test_the_minimum_is_left_out_where_it_would_be_the_worst_set(here):
    class Higher(First):
        higher_is_better = True

    found = scorer(here, Higher(extractor=Counted(), name="a"), sets=3).measure(images(6))
    assert {"a", "a_std"} <= set(found.scores)
    assert "a_min" not in found.scores


def test_no_more_sets_are_scored_than_the_tolerance_asks_for(here):
    equal = Samples(Batch(torch.full((10, 1, 1, 2), 0.5)), nfe=1)
    found = scorer(here, METRICS[0], sets=5, tolerance=0.01).measure(equal)
    assert found.facts["a"]["sets"] == "3 of 5: the first 6 of 10 samples"
    spread = scorer(here, METRICS[0], sets=5, tolerance=0.01).measure(images(10))
    assert spread.facts["a"]["sets"] == "5"


def test_samples_that_do_not_split_into_the_sets_are_refused(here):
    with raises_code(DataError, Code.WRONG_LENGTH, 4):
        scorer(here, METRICS[0], sets=4).measure(images(6))


def test_a_metric_that_returns_other_scores_than_it_names_is_refused(here):
    class Other(First):
        def measure(self, subject, context):
            return Measurement(scores={"other": 1.0})

    with raises_code(DataError, Code.INVALID_RESULT, "other"):
        scorer(here, Other(extractor=Counted())).measure(images())


@pytest.mark.parametrize("features", [None, [[0.0, 0.0]] * 6], ids=["none", "lists"])
def test_an_extractor_that_returns_no_tensor_is_refused(here, monkeypatch, features):
    class Empty(nn.Module):
        def forward(self, x):
            return features

    monkeypatch.setattr(Counted, "bind", lambda self, inputs: Empty())
    with raises_code(DataError, Code.INVALID_RESULT, type(features).__name__):
        Extractors(here).compute(Counted(), images().batch.data, "sample")


def test_samples_of_no_item_are_refused():
    with raises_code(DataError, Code.WRONG_LENGTH):
        Samples(Batch(torch.zeros(0, 2)), nfe=1)


# --- statistics ---------------------------------------------------------------------------------


def reference(here, path):
    return StatisticsReference(path, Extractors(here))


def test_statistics_of_a_file_are_those_of_the_features(here, tmp_path):
    items = DatasetReference(Bytes(), Extractors(here))
    statistics = items.statistics(Counted())
    features = torch.arange(16).reshape(8, 2).numpy() / 127.5 - 1
    np.testing.assert_allclose(statistics.mean, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(statistics.covariance, np.cov(features.T), rtol=1e-5)
    save_statistics(tmp_path / "own.safetensors", {"frechet_counted": statistics})
    again = reference(here, tmp_path / "own.safetensors").statistics(Counted())
    assert torch.equal(again.mean, statistics.mean)
    assert torch.equal(again.covariance, statistics.covariance)
    assert (again.count, again.extractor, again.data) == (8, "counted sha256:0", items.identity)


def test_the_published_form_is_read_and_the_assumption_is_printed(here, tmp_path):
    class Published(Counted):
        frechet = "fid"

    rows = np.random.default_rng(0).normal(size=(50, 3))
    np.savez(tmp_path / "edm.npz", mu=rows.mean(0), sigma=np.cov(rows.T))
    found = reference(here, tmp_path / "edm.npz").statistics(Published())
    np.testing.assert_array_equal(found.covariance, np.cov(rows.T))
    assert found.count is None
    assert "counted sha256:0" in here.warnings[0]
    with raises_code(DataError, Code.WRONG_KIND, "frechet_counted"):
        reference(here, tmp_path / "edm.npz").statistics(Counted())


def test_published_tables_are_read_without_running_code(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    pair = {"mu": rows.mean(0), "sigma": np.cov(rows.T)}
    for count in ({"num_images": 50}, {}):
        (tmp_path / "edm2.pkl").write_bytes(pickle.dumps({**count, "fid": pair, "fd_dinov2": pair}))
        found = load_statistics(tmp_path / "edm2.pkl")
        assert set(found) == {"fid", "fd_dinov2"}
        assert found["fid"].count == count.get("num_images")
    np.testing.assert_array_equal(found["fd_dinov2"].mean, pair["mu"])


def test_a_pickled_pair_alone_is_that_of_the_fid(tmp_path):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    pair = {"mu": rows.mean(0), "sigma": np.cov(rows.T)}
    (tmp_path / "edm.pkl").write_bytes(pickle.dumps(pair))
    (found,) = load_statistics(tmp_path / "edm.pkl").items()
    assert found[0] == "fid"
    np.testing.assert_array_equal(found[1].covariance, pair["sigma"])


NETWORK = safetensors.torch.save({"a": torch.zeros(2)}, {"genkit": '{"kind": "denoiser"}'})


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("text.npz", b"mu sigma", Code.UNREADABLE),
        ("list.pkl", pickle.dumps([1, 2]), Code.UNREADABLE),
        ("evil.pkl", pickle.dumps(Evil()), Code.UNREADABLE),
        ("evil.pkl", pickle.dumps({"fid": Evil()}), Code.UNREADABLE),
        ("nan.pkl", pickle.dumps({"mu": np.full(2, np.nan), "sigma": np.eye(2)}), Code.NOT_FINITE),
        ("shape.pkl", pickle.dumps({"mu": np.zeros(3), "sigma": np.eye(2)}), Code.WRONG_SHAPE),
        ("empty.pkl", pickle.dumps({}), Code.UNREADABLE),
        ("network.safetensors", NETWORK, Code.UNREADABLE),
        ("absent.npz", None, Code.NOT_FOUND),
    ],
)
def test_refusals_of_files_show_no_text_of_python(tmp_path, capsys, name, content, code):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with raises_code(DataError, code, name, "genkit stats") as caught:
        load_statistics(file)
    text = str(caught.value)
    leaks = ("allow_pickle", "attribute", "object", "print", "Error", "pickle:", "'")
    assert not [leak for leak in leaks if leak in text]
    assert text.count("; ") == 1
    assert capsys.readouterr().out == ""


def test_an_array_without_mu_and_sigma_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(2))
    with raises_code(DataError, Code.UNREADABLE, "a.npz") as caught:
        load_statistics(tmp_path / "a.npz")
    assert "is not a file in the archive" not in str(caught.value)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1234.5])
def test_features_without_correlation_have_statistics_at_every_scale(scale):
    signs = torch.from_numpy(hadamard(1024))[:, 1:65].float()
    features = scale * signs * (1 + torch.arange(64) / 7.3) + 3.3
    found = Statistics.of(features)
    wanted = np.cov(features.double().numpy().T)
    np.testing.assert_allclose(found.covariance, wanted, rtol=1e-10, atol=1e-10 * wanted.max())


def test_statistics_of_another_extractor_are_refused(here, tmp_path):
    other = Statistics(torch.zeros(2), torch.eye(2), 8, "counted sha256:1", "data")
    save_statistics(tmp_path / "other.safetensors", {"frechet_counted": other})
    with raises_code(DataError, Code.WRONG_KIND, "sha256:1"):
        reference(here, tmp_path / "other.safetensors").statistics(Counted())


def test_statistics_of_another_extractor_are_refused_before_anything_is_drawn(here, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Needing(First):
        accepts_statistics = True
        min_reference = 1

    file = tmp_path / "other.safetensors"
    stage = Evaluate(
        samples="samples", statistics=str(file), metrics=[Needing(extractor=Counted())]
    )
    for identity, refused in (("counted sha256:0", False), ("counted sha256:1", True)):
        other = Statistics(torch.zeros(2), torch.eye(2), 8, identity, "data")
        save_statistics(file, {"frechet_counted": other})
        with raises_code(DataError, Code.WRONG_KIND, identity) if refused else nullcontext():
            stage.scorer(here)


def test_one_bit_of_a_file_of_statistics_is_noticed(tmp_path):
    file = tmp_path / "a.safetensors"
    save_statistics(file, {"fid": Statistics(torch.ones(2), torch.eye(2), 8, "a", "b")})
    whole = file.read_bytes()
    assert load_statistics(file)["fid"].count == 8
    for place in (-1, -9 * 4):  # the mean, and the covariance before it
        content = bytearray(whole)
        content[place] ^= 1
        file.write_bytes(bytes(content))
        with raises_code(DataError, Code.UNREADABLE, "a.safetensors"):
            load_statistics(file)


def test_a_file_of_statistics_without_a_hash_is_refused(tmp_path):
    file = tmp_path / "a.safetensors"
    save_statistics(file, {"fid": Statistics(torch.ones(2), torch.eye(2), 8, "a", "b")})
    named, metadata = tensors.load(file)
    known = json.loads(metadata["fid"])
    del known["sha256"]
    tensors.save(file, named, {"fid": json.dumps(known)})
    with raises_code(DataError, Code.UNREADABLE, "a.safetensors"):
        load_statistics(file)


def test_samples_that_do_not_state_how_they_were_drawn_are_reported(here):
    known = {"seeds": "0", "sampler": "normal"}
    for missing in known:
        facts = {name: fact for name, fact in known.items() if name != missing}
        here.warnings.clear()
        scorer(here, METRICS[0]).measure(replace(images(), facts=facts))
        (warning,) = here.warnings
        assert missing in warning
    here.warnings.clear()
    scorer(here, METRICS[0]).measure(images())
    assert here.warnings == []


@pytest.mark.parametrize("name", ["a.npz", "a.pkl", "a.safetensors"])
def test_a_file_of_something_else_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing")
    with raises_code(DataError, Code.UNREADABLE, name):
        load_statistics(tmp_path / name)


def test_a_published_file_that_is_damaged_is_refused(tmp_path):
    file = tmp_path / "edm.npz"
    np.savez(file, mu=np.zeros(2), sigma=np.eye(2))
    whole = file.read_bytes()
    flipped = whole.replace(np.eye(2).tobytes(), np.eye(2).tobytes()[::-1])
    for content in (b"", whole[:-40], flipped):
        file.write_bytes(content)
        with raises_code(DataError, Code.UNREADABLE, "edm.npz"):
            load_statistics(file)


@pytest.mark.parametrize(
    ("mean", "covariance", "code"),
    [
        (torch.zeros(2), torch.eye(3), Code.WRONG_SHAPE),
        (torch.zeros(2), torch.tensor([[1.0, 0.5], [0.2, 1.0]]), Code.UNREADABLE),
        (torch.tensor([torch.nan, 0]), torch.eye(2), Code.NOT_FINITE),
        (torch.zeros(0), torch.zeros(0, 0), Code.WRONG_SHAPE),
    ],
)
def test_statistics_that_are_none_are_refused(mean, covariance, code):
    with raises_code(DataError, code):
        Statistics(mean, covariance)


def test_features_of_items_are_not_had_from_statistics(here, tmp_path):
    save_statistics(tmp_path / "a.safetensors", {"fid": Statistics(torch.zeros(2), torch.eye(2))})
    with raises_code(DataError, Code.MISSING_ATTRIBUTE, "a.safetensors"):
        reference(here, tmp_path / "a.safetensors").features(Counted())
