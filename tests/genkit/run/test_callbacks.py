"""Callbacks observe a training, and no bit of its result depends on them."""

from __future__ import annotations

import json
import random
import threading

import numpy as np
import pytest
import torch

from genkit.artifacts import Record
from genkit.artifacts.layout import CHECKPOINT
from genkit.artifacts.statistics import Statistics, save_statistics
from genkit.errors import Code, DataError, PluginError, RecipeError
from genkit.interfaces import Preconditioned
from genkit.parts.no_stages import NoStages
from genkit.parts.precision import multiplying_in
from genkit.plugin.manager import load_plugins
from genkit.plugin.registry import Owner, Registration
from genkit.run.engine import fingerprints
from genkit.run.fingerprint import dependents, reachable
from genkit.tensors import load
from genkit.train.pairing import PairStream
from genkit.types import Measurement
from genkit_metrics.extractors import Pixels
from genkit_stages.callbacks import isolated
from genkit_stages.preview import Preview
from raising import raises_code

pytestmark = pytest.mark.slow

NETWORK = 'network = { use = "mlp", width = 8, blocks = 1, dropout = 0.2 }'

STEPS = 'schedule = { use = "edm", steps = 3 }'

PREVIEW = f'{{ use = "preview", every = 100, count = 4, {STEPS} }}'

SCORE = (
    f'{{ use = "score", every = 64, count = 16, batch_size = 10, {STEPS}, '
    'metrics = [{ use = "frechet" }, { use = "curvature", count = 4 }] }'
)

ODD = """
from genkit.plugin import Callback

class Odd(Callback):
    \"\"\"Fails.\"\"\"

    def call(self, training, context):
        return 1 / 0
"""

CLASSIFY = """# A classifier for the scores of the training below it.
name = "observed"
data = { use = "digits" }

[[stage]]
id = "classifier"
use = "train"
images = 64
batch_size = 64
network = { use = "cnn-classifier", channels = 4 }
objective = { use = "classification" }

[[stage]]
id = "denoiser"
use = "train"
images = 64
batch_size = 64
network = { use = "mlp", width = 8, blocks = 1 }
objective = { use = "denoising" }
"""

BY_CLASSIFIER = (
    f'callbacks = [{{ use = "score", every = 64, count = 16, {STEPS}, metrics = [{{ use = '
    '"frechet", extractor = { use = "classifier", classifier = "classifier" } }] }]\n'
)


class Killed(BaseException):
    """Ends a run as a kill does."""


@pytest.fixture
def plain(tiny):
    """A recipe of a training with dropout and a coupler, and of samples."""
    train = tiny.train.replace('network = { use = "mlp", width = 8, blocks = 1 }', NETWORK)
    return f'{train}coupler = {{ use = "hungarian" }}\ncheckpoint_seconds = 0\n{tiny.samples}'


@pytest.fixture
def observed(plain):
    """The same with callbacks."""
    return observing(plain, PREVIEW, SCORE)


def observing(text, *callbacks):
    return text.replace(NETWORK, f"{NETWORK}\ncallbacks = [{', '.join(callbacks)}]")


def called(tiny):
    """Return the rows of callbacks."""
    return [row for row in tiny.metrics() if "callback" in row]


def same_results(tiny, plain):
    """Require the bytes that a run without callbacks writes in another folder."""
    other = tiny.folder.parent / "plain"
    tiny.run(plain, folder=other)
    for name in ("denoiser.safetensors", "samples.safetensors", CHECKPOINT):
        assert tiny.bytes_of(name) == tiny.bytes_of(name, other), name


def disturb():
    """Change what code can change of its process."""
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float64)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    torch.backends.cudnn.benchmark = True


def meddle(self, training, context):
    """Change all that a callback can reach."""
    disturb()
    for trained in (training.network, training.averaged):
        trained.module.train().requires_grad_(True)
        with torch.enable_grad():
            levels = torch.ones(4, dtype=torch.float32)
            x = torch.ones(4, 2, dtype=torch.float32)
            trained.module(x, levels).sum().backward()
        with torch.no_grad():
            for parameter in trained.module.parameters():
                parameter.zero_()
    return Measurement({"meddled": 1.0})


# --- the result is the same -----------------------------------------------------------------


def test_callbacks_change_no_bit(tiny, plain, observed):
    tiny.run(observed)
    same_results(tiny, plain)


def test_a_callback_that_changes_what_it_can_changes_no_bit(tiny, plain, observed, monkeypatch):
    monkeypatch.setattr(Preview, "call", meddle)
    tiny.run(observed)
    same_results(tiny, plain)


@pytest.fixture
def switches():
    """The switches of arithmetic that a callback might leave on."""
    convolutions, matrices = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    with multiplying_in("float32"):
        yield lambda: (
            convolutions.fp32_precision,
            matrices.fp32_precision,
            torch.backends.cudnn.benchmark,
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )


def test_the_process_is_as_before_behind_a_callback_that_raises(switches):
    before, numbers, legacy = switches(), random.getstate(), np.random.get_state()  # noqa: NPY002
    state = torch.get_rng_state()

    def fail():
        assert not torch.is_grad_enabled()
        disturb()
        assert switches() != before
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), isolated(torch.device("cpu")):
        fail()
    assert switches() == before
    assert random.getstate() == numbers
    assert (np.random.get_state()[1] == legacy[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), state)


def test_no_pool_is_coupled_while_a_callback_runs(tiny, observed, monkeypatch):
    pairing, solve, seen = [], PairStream.solve, []

    def slow(self, *arguments):
        pairing.append(None)
        threading.Event().wait(0.02)
        result = solve(self, *arguments)
        pairing.pop()
        return result

    def call(self, training, context):
        seen.append(len(pairing))
        return Measurement({})

    monkeypatch.setattr(PairStream, "solve", slow)
    monkeypatch.setattr(Preview, "call", call)
    tiny.run(observed, "denoiser.images=1000", "denoiser.pools_ahead=3")
    assert seen == [0] * len(seen) != []


# --- what is recorded -----------------------------------------------------------------------


def test_rows_and_pictures_are_recorded_at_their_images(tiny, observed):
    # So fast that weights and their average differ by whole pixels of a picture.
    tiny.run(observed, "denoiser.optimizer.learning_rate=0.1")
    rows = called(tiny)
    assert [(row["images"], row["callback"]) for row in rows] == [
        (images, "score") for images in (64, 128, 192, 256)
    ]
    assert all(row.keys() == {"images", "callback", "frechet_pixels", "curvature"} for row in rows)
    raw, averaged = (tiny.bytes_of(f"preview-{name}.png") for name in ("raw", "averaged"))
    assert raw != averaged
    assert raw.startswith(b"\x89PNG")
    assert averaged.startswith(b"\x89PNG")


def kept_pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*/during-training/*.png")}


def test_pictures_during_the_training_are_kept(tiny, observed):
    tiny.run(observed, "denoiser.optimizer.learning_rate=0.1")  # for the same reason
    kept = kept_pictures(tiny.folder)
    names = ("preview-averaged", "preview-raw")
    assert sorted(kept) == [f"{name}-{n:010d}.png" for name in names for n in (128, 256)]
    assert kept["preview-averaged-0000000256.png"] == tiny.bytes_of("preview-averaged.png")
    assert kept["preview-averaged-0000000128.png"] != tiny.bytes_of("preview-averaged.png")


def test_the_end_is_a_call_where_it_is_no_multiple(tiny, plain, monkeypatch):
    at = []

    def call(self, training, context):
        at.append((training.images, training.total))
        return Measurement({})

    monkeypatch.setattr(Preview, "call", call)
    tiny.run(observing(plain, PREVIEW), "denoiser.images=230")
    assert at == [(128, 230), (230, 230)]


def test_networks_are_those_of_the_training_in_eval_mode(tiny, plain, monkeypatch):
    seen = []

    def call(self, training, context):
        seen.append((training.network, training.averaged))
        assert not torch.is_grad_enabled()
        assert context.world.size == 1
        return Measurement({})

    monkeypatch.setattr(Preview, "call", call)
    tiny.run(observing(plain, PREVIEW))
    for trained in seen[-1]:
        assert not any(module.training for module in trained.module.modules())
        assert not any(p.requires_grad for p in trained.module.parameters())
    weights, _ = load(tiny.folder / "01-denoiser" / "denoiser.safetensors")
    assert all(torch.equal(t, weights[n]) for n, t in seen[-1][1].module.state_dict().items())


def test_a_score_is_the_same_over_the_statistics_of_the_data(tiny, observed, tmp_path):
    tiny.run(observed)
    wanted = [row["frechet_pixels"] for row in called(tiny)]
    data = tiny.load(observed).data
    file = tmp_path / "moons.safetensors"
    statistics = Statistics.of(data.load(NoStages()).data, Pixels().identity(NoStages()))
    save_statistics(file, {Pixels().frechet: statistics})
    named = SCORE.replace("every", f'statistics = "{file}", every')
    folder = tiny.folder.parent / "statistics"
    tiny.run(observed.replace(SCORE, named), folder=folder)
    lines = map(json.loads, tiny.bytes_of("metrics.jsonl", folder).splitlines())
    assert [row["frechet_pixels"] for row in lines if "frechet_pixels" in row] == wanted
    for metric in ('"nearest"', '"frechet", extractor = { use = "classifier", file = "digits" }'):
        refused = named.replace('{ use = "frechet" }', f"{{ use = {metric} }}")
        with raises_code(RecipeError, Code.CONFLICT, "denoiser.callbacks.0.metrics.0"):
            tiny.load(observed.replace(SCORE, refused).replace(f"{PREVIEW}, ", ""))


def test_trackers_are_passed_rows_and_pictures(tiny, observed):
    tiny.run(observed, 'trackers=[{ use = "csv" }]')
    text = (tiny.folder / "trackers" / "csv" / "metrics.csv").read_text()
    assert sum(",frechet_pixels," in line for line in text.splitlines()) == 4


def test_the_warning_of_a_metric_is_shown_once(tiny, observed, monkeypatch, caplog):
    found = Measurement({}, warnings=["few samples"])
    monkeypatch.setattr(Preview, "call", lambda *_: found)
    tiny.run(observed)
    assert caplog.text.count("few samples") == 1


# --- stops and kills ------------------------------------------------------------------------


@pytest.mark.parametrize("at", [2, 4])
@pytest.mark.parametrize("method", ["checkpoint", "log"])
def test_a_kill_leaves_each_row_once(tiny, plain, observed, monkeypatch, at, method):
    calls, original = [], getattr(Record, method)

    def killing(self, row, *arguments):
        if method == "checkpoint" or "callback" in row:
            calls.append(row)
            if len(calls) == at:
                raise Killed
        return original(self, row, *arguments)

    monkeypatch.setattr(Record, method, killing)
    with pytest.raises(Killed):
        tiny.run(observed)
    monkeypatch.undo()
    tiny.run(observed)
    rows = called(tiny)
    same_results(tiny, plain)
    whole = tiny.folder.parent / "whole"
    tiny.run(observed, folder=whole)
    lines = tiny.bytes_of("metrics.jsonl", whole).splitlines()
    assert rows == [row for row in map(json.loads, lines) if "callback" in row]
    for name in ("preview-raw.png", "preview-averaged.png"):
        assert tiny.bytes_of(name) == tiny.bytes_of(name, whole)
    assert kept_pictures(tiny.folder) == kept_pictures(whole)


def test_a_callback_that_raises_is_called_again(tiny, plain, observed, monkeypatch):
    """Also the callbacks after it at the same images: the score is measured after the preview."""
    with monkeypatch.context() as patch, raises_code(DataError, Code.INVALID_RESULT):
        patch.setattr(Preview, "call", lambda *_: None)
        tiny.run(observed)
    tiny.run(observed)
    assert [row["images"] for row in called(tiny)] == [64, 128, 192, 256]
    assert len(kept_pictures(tiny.folder)) == 4
    same_results(tiny, plain)


# --- failures -------------------------------------------------------------------------------


def test_samples_that_are_not_finite_are_a_warning(tiny, observed, monkeypatch, caplog):
    forward = Preconditioned.forward

    def overflowing(self, *arguments):
        return forward(self, *arguments) * (1.0 if self.training else float("inf"))

    monkeypatch.setattr(Preconditioned, "forward", overflowing)
    train = observed.partition('\n[[stage]]\nid = "samples"')[0]
    tiny.run(train)
    rows = called(tiny)
    assert {row["callback"] for row in rows} == {"preview", "score"}
    assert all(row["warning"] for row in rows)
    assert "score at 64 images" in caplog.text


def test_an_error_of_a_plugin_s_callback_names_it(tiny, plain, tmp_path, monkeypatch):
    (tmp_path / "odd_observer.py").write_text(ODD)
    monkeypatch.syspath_prepend(tmp_path)
    plugins = load_plugins()
    registration = Registration(Owner("odd", "genkit-odd", "0.3"))
    registration.add("callback", "odd", "odd_observer:Odd")
    plugins.registry.accept(registration)
    tiny.plugins = plugins
    named = ("callback", "odd", "genkit-odd", "ZeroDivisionError", "denoiser")
    with raises_code(PluginError, Code.PLUGIN, *named):
        tiny.run(observing(plain, '{ use = "odd", every = 64 }'))


@pytest.mark.parametrize(
    "found",
    [
        None,
        Measurement({"loss": 1.0}),
        Measurement({"distance": "far"}),
        Measurement({}, pictures={"loss": b""}),
        Measurement({}, pictures={"../loss": b""}),
        Measurement({}, pictures={"picture": "text"}),
    ],
)
def test_an_invalid_result_is_refused(tiny, observed, monkeypatch, found):
    monkeypatch.setattr(Preview, "call", lambda *_: found)
    with raises_code(DataError, Code.INVALID_RESULT, "preview", "stages"):
        tiny.run(observed)


@pytest.mark.parametrize(
    ("callbacks", "code", "key"),
    [
        ((PREVIEW, PREVIEW), Code.DUPLICATE, "callbacks.1"),
        ((SCORE, SCORE), Code.DUPLICATE, "callbacks.1"),
        ((PREVIEW.replace("100", "0"),), Code.OUT_OF_RANGE, "callbacks.0.every"),
        ((SCORE.replace("count = 16", "count = 1"),), Code.CONFLICT, "callbacks.0.metrics.0"),
        (
            (SCORE.replace('{ use = "curvature", count = 4 }', '{ use = "frechet" }'),),
            Code.DUPLICATE,
            "callbacks.0.metrics.1",
        ),
        (
            (SCORE.replace("metrics", 'data = { use = "digits" }, metrics'),),
            Code.CONFLICT,
            "callbacks.0.data",
        ),
    ],
)
def test_mistakes_are_found_before_anything_runs(tiny, plain, callbacks, code, key):
    with raises_code(RecipeError, code, key):
        tiny.load(observing(plain, *callbacks))


def test_a_callback_that_draws_refuses_other_networks(tiny):
    text = CLASSIFY.replace("channels = 4 }", f"channels = 4 }}\ncallbacks = [{PREVIEW}]")
    with raises_code(RecipeError, Code.CONFLICT, "callbacks.0", "denoiser"):
        tiny.load(text)


def test_a_preview_of_more_images_than_are_shown_is_refused(tiny):
    preview = PREVIEW.replace("count = 4", "count = 101")
    with raises_code(RecipeError, Code.OUT_OF_RANGE, "callbacks.0.count"):
        tiny.load(f"{CLASSIFY}callbacks = [{preview}]\n")


# --- fingerprints ---------------------------------------------------------------------------


def test_callbacks_are_in_no_fingerprint(tiny, plain, observed):
    registry = tiny.plugins.registry
    one = fingerprints(tiny.load(plain), registry)
    assert fingerprints(tiny.load(observed), registry) == one
    tiny.run(plain)
    assert tiny.run(observed)[0].skipped == ["denoiser", "samples"]


def test_a_stage_that_a_callback_names_is_read_and_is_in_no_fingerprint(tiny):
    recipe = tiny.load(CLASSIFY + BY_CLASSIFIER)
    registry = tiny.plugins.registry
    plain = fingerprints(tiny.load(CLASSIFY), registry)
    assert fingerprints(recipe, registry) == plain
    assert reachable("denoiser", recipe.stages) == frozenset()
    assert dependents(["classifier"], recipe.stages) == ["classifier"]
    tiny.run(CLASSIFY + BY_CLASSIFIER)
    (line,) = (
        line
        for line in (tiny.folder / "02-denoiser" / "metrics.jsonl").read_text().splitlines()
        if "callback" in line
    )
    assert json.loads(line).keys() == {"images", "callback", "frechet_classifier"}


def test_a_callback_names_an_earlier_stage(tiny):
    wrong = BY_CLASSIFIER.replace('classifier = "classifier"', 'classifier = "denoiser"')
    with raises_code(RecipeError, Code.WRONG_REFERENCE, "denoiser"):
        tiny.load(CLASSIFY + wrong)
