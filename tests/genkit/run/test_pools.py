"""What the train stage asks of couplers and pools, and what it logs of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from genkit.errors import Code, InterruptedRun, RecipeError
from genkit.independent import Random
from genkit.interfaces import Coupler, DatasetCoupler
from genkit.random import generator
from genkit.train.diagnostics import is_skewed
from genkit.train.pairing import PairStream
from genkit.types import Batch, Pairs
from genkit_aot.hungarian import Hungarian
from genkit_aot.sinkhorn import Sinkhorn
from raising import raises_code

pytestmark = pytest.mark.slow

HUNGARIAN = 'denoiser.coupler={ use = "hungarian" }'
PER_POOL = {
    "pool",
    "images",
    "pairs",
    "cost_before",
    "cost_after",
    "reduction",
    "seconds_solving",
    "seconds_waited",
    "gap",
    "entropy",
    "parts",
    "noises",
    "noise_mean",
    "noise_variance",
    "noise_worst",
}


def pools(tiny):
    return [row for row in tiny.metrics() if "pool" in row]


def test_every_pool_is_logged_and_drawn(tiny):
    tiny.run(tiny.train, HUNGARIAN, "denoiser.pool_size=100")
    rows = pools(tiny)
    assert [(r["pool"], r["images"], r["pairs"]) for r in rows] == [
        (0, 0, 100),
        (1, 100, 100),
        (2, 200, 56),
    ]
    for row in rows:
        assert set(row) == PER_POOL
        assert 0 < row["cost_after"] < row["cost_before"]
        assert row["reduction"] == pytest.approx(1 - row["cost_after"] / row["cost_before"], 1e-4)
        assert row["seconds_solving"] > 0
        assert abs(row["noise_mean"]) < 0.5
        assert abs(row["noise_variance"] - 1) < 0.5
        assert 0 < row["noise_worst"] < 6
    assert (tiny.folder / "01-denoiser" / "pairs.png").is_file()


def test_random_pairs_have_nothing_to_draw(tiny):
    tiny.run(tiny.train)
    assert [row["reduction"] for row in pools(tiny)] == [0] * 4
    assert not (tiny.folder / "01-denoiser" / "pairs.png").exists()


def test_sizes_of_parts_are_logged(tiny):
    tiny.run(tiny.train, 'denoiser.coupler={ use = "partitioned" }', "denoiser.pool_size=128")
    for row in pools(tiny):
        least, median, greatest = row["parts"]
        assert least + greatest == row["pairs"] == 128
        assert median == 64


def test_a_resumed_run_logs_every_pool_once(tiny):
    def stop(done, total):
        if done == 128:
            os.kill(os.getpid(), signal.SIGINT)

    settings = (HUNGARIAN, "denoiser.pool_size=100")
    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, *settings, progress=tiny.recorder(stop))
    assert [row["pool"] for row in pools(tiny)] == [0, 1]
    tiny.run(tiny.train, *settings)
    assert [row["pool"] for row in pools(tiny)] == [0, 1, 2]


def test_a_pool_that_begins_where_training_goes_on_is_logged_once(tiny):
    def stop(done, total):
        if done == 128:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun):
        tiny.run(tiny.train, HUNGARIAN, progress=tiny.recorder(stop))
    tiny.run(tiny.train, HUNGARIAN)
    assert [row["pool"] for row in pools(tiny)] == [0, 1, 2, 3]


KILLED = """
import os, signal, sys

from genkit.cli import main
from genkit.train.trainer import Trainer

method, left = sys.argv[1], int(sys.argv[2])
original = getattr(Trainer, method)

def killing(self, *arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments)

setattr(Trainer, method, killing)
main(sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("method", "calls", "pool_size"),
    [
        # The pool that begins at the checkpoint is logged, and its first step is not made.
        ("step", 2, 64),
        # The step and the four pools of its batch are logged, and its checkpoint is not written.
        ("state", 2, 16),
        # A pool reaches across the checkpoint, and another begins after it.
        ("step", 3, 100),
    ],
)
def test_a_killed_run_logs_every_pool_once(tiny, method, calls, pool_size):
    settings = (HUNGARIAN, f"denoiser.pool_size={pool_size}", "denoiser.checkpoint_seconds=0")
    recipe = tiny.folder.with_suffix(".toml")
    recipe.write_text(tiny.train)
    sets = [part for setting in settings for part in ("--set", setting)]
    command = ["run", str(recipe), "--out", str(tiny.folder), "--device", "cpu", *sets]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, method, str(calls), *command],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert tiny.metrics()[-1]["images"] < 256
    tiny.run(tiny.train, *settings)
    assert [row["pool"] for row in pools(tiny)] == list(range(-(-256 // pool_size)))
    assert [row["images"] for row in tiny.metrics() if "loss" in row] == [64, 128, 192, 256]


def test_of_very_many_pools_some_are_logged(tiny, monkeypatch):
    monkeypatch.setattr("genkit_stages.training.MAX_POOL_ROWS", 4)
    tiny.run(tiny.train, "denoiser.pool_size=16")
    assert [row["pool"] for row in pools(tiny)] == [0, 4, 8, 12]


def test_pools_ahead_changes_no_weight(tiny, tmp_path):
    tiny.run(tiny.train, HUNGARIAN)
    other = tmp_path / "other"
    tiny.run(tiny.train, HUNGARIAN, "denoiser.pools_ahead=7", folder=other)
    one, two = (tiny.bytes_of("denoiser.safetensors", f) for f in (tiny.folder, other))
    assert one == two


def test_a_pool_may_be_smaller_than_a_batch(tiny):
    tiny.run(tiny.train, HUNGARIAN, "denoiser.pool_size=24")
    assert [row["pairs"] for row in pools(tiny)] == [24] * 10 + [16]


def test_images_per_class_needs_labels(tiny):
    text = tiny.train.replace('use = "moons"', 'use = "swiss-roll"')
    with raises_code(RecipeError, Code.MISSING_ATTRIBUTE, "images_per_class"):
        tiny.load(text, "denoiser.images_per_class=8")


def test_images_per_class_gives_larger_parts(tiny):
    coupler = 'denoiser.coupler={ use = "partitioned" }'
    tiny.run(tiny.train, coupler, "denoiser.pool_size=32", "denoiser.images_per_class=32")
    assert any(row["parts"][0] == 32 for row in pools(tiny))


# --- couplers that declare that the noise is N(0, I) --------------------------------------------


class Drawn(Coupler):
    """Independent draws from the noise of the pool, some of which are assigned several times."""

    def pair(self, batch, noise, generator):
        return Pairs(torch.arange(len(batch)), self.chosen(batch.data, noise, generator))

    def chosen(self, images, noise, generator):
        return torch.randint(len(noise), (len(images),), generator=generator)


class OneOfAll(Drawn):
    """One sample for all images: N(0, I) over many pools, and in none of them."""

    def chosen(self, images, noise, generator):
        return torch.zeros(len(images), dtype=torch.int64)


class Nearest(Drawn):
    def chosen(self, images, noise, generator):
        return torch.cdist(images, noise).argmin(dim=1)


class Shortest(Drawn):
    def chosen(self, images, noise, generator):
        return noise.flatten(1).norm(dim=1).argsort()[: len(images) // 2].repeat(2)


class Shifted(Drawn):
    """Noise whose first dimension is above, and whose second is below the mean."""

    def chosen(self, images, noise, generator):
        order = (noise[:, 1] - noise[:, 0]).argsort()
        return order[: len(images) // 2].repeat(2)


def rows_of(coupler, shape=(2,), pool=64, count=64):
    images = torch.randn((512, *shape), generator=generator(0, "images")) * 2 + 1
    stream = PairStream(
        Batch(images), coupler, coupler, None, pool, pool * count, lambda *key: generator(1, *key)
    )
    return [stream.pool(index).report.row() for index in range(count)]


@pytest.mark.parametrize("coupler", [Random(), Hungarian(), Sinkhorn(), Drawn(), OneOfAll()])
@pytest.mark.parametrize("shape", [(1,), (2,), (40,)])
def test_noise_of_a_correct_coupler_is_not_skewed(coupler, shape):
    rows = rows_of(coupler, shape)
    assert not any(is_skewed(rows[start:], shape) for start in range(56))


@pytest.mark.parametrize("coupler", [Nearest(), Shortest(), Shifted()])
def test_skewed_noise_is_found(coupler):
    rows = rows_of(coupler)
    assert is_skewed(rows, (2,))
    assert not is_skewed(rows[:7], (2,))


def test_a_declaration_that_does_not_hold_is_reported_once(tiny, monkeypatch, caplog):
    settings = ('denoiser.coupler={ use = "sinkhorn" }', "denoiser.images=4096")
    tiny.run(tiny.train, *settings)
    assert caplog.records == []
    monkeypatch.setattr(Sinkhorn, "pair", Nearest.pair)
    monkeypatch.setattr(Sinkhorn, "chosen", Nearest.chosen, raising=False)
    tiny.run(tiny.train, *settings, "seed=1")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith('denoiser: coupler "sinkhorn" of plugin aot (genkit-diffusion ')


@dataclass(frozen=True, kw_only=True)
class Reversed(Coupler):
    """Pairs in reverse; declares nothing."""

    def pair(self, batch, noise, generator):
        index = torch.arange(len(batch))
        return Pairs(index, index.flip(0))


@dataclass(frozen=True, kw_only=True)
class NearestImage(DatasetCoupler):
    """The nearest image of the data set."""

    def choose(self, data, noise, generator):
        return torch.cdist(noise, data.data).argmin(dim=1)


def problems(tiny, coupler, *settings):
    stage = tiny.load(tiny.train, *settings).stages["denoiser"]
    return [p.reason for p in replace(stage, coupler=coupler).check({})]


def test_a_coupler_is_bound_to_what_earlier_stages_left(tiny, monkeypatch):
    folders = []

    class Sorted:
        def pair(self, batch, noise, generator):
            return Pairs(batch.data[:, 0].argsort(), noise[:, 0].argsort())

    def bind(self, inputs):
        folders.append(inputs.folder)
        return Sorted()

    monkeypatch.setattr(Random, "bind", bind)
    tiny.run(tiny.train)
    assert folders == [tiny.folder / "01-denoiser"]
    assert [row["pairs"] for row in pools(tiny)] == [64] * 4
    assert all(row["reduction"] > 0.2 for row in pools(tiny))


def test_noise_that_is_not_the_samplers_is_refused_unless_it_is_meant(tiny):
    (reason,) = problems(tiny, Reversed())
    assert "must declare" in reason
    assert problems(tiny, Reversed(), "denoiser.accept_skewed_noise=true") == []
    assert problems(tiny, NearestImage()) == []


def test_there_are_no_stratified_pools_of_the_whole_data_set(tiny):
    (reason,) = problems(tiny, NearestImage(), "denoiser.images_per_class=8")
    assert "chooses from the whole data set" in reason
