from __future__ import annotations

import json

import pytest

from genkit.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]

SMALL = ("--set", 'denoiser.network={ use = "mlp", width = 16, blocks = 1 }', "--device", "cpu")
DATA = ("--data", '{ use = "synthetic", shape = [1, 4, 4], count = 64 }')
TRAIN = ("train", "edm", *SMALL, *DATA, "--batch-size", "8", "--rounds", "1")
SAMPLE = ("sample", "edm", *SMALL, *DATA, "--batch-size", "2", "--steps", "2,3", "--rounds", "1")


@pytest.fixture
def bench(capsys):
    """Call ``genkit bench``; returns exit code, stdout and stderr."""

    def call(*arguments):
        capsys.readouterr()  # what was printed before is not its own
        with pytest.raises(SystemExit) as stopped:
            main(["bench", *arguments])
        out, err = capsys.readouterr()
        return stopped.value.code or 0, out, err

    return call


def test_training_as_a_table(bench):
    code, out, err = bench(*TRAIN, "--variants", "plain,float32", "--images", "16")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == [
        "variant", "images/s", "against", "plain", "forward", "backward", "optimizer", "EMA",
        "waiting", "memory", "of", "peak",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[2:4]] == ["plain", "float32"]
    assert "parameters; " in out
    assert "per batch: data" in out


def test_training_as_json(bench):
    code, out, _ = bench(*TRAIN, "--variants", "recipe,channels-last", "--images", "8", "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["variant"] for row in found["rows"]] == ["recipe", "channels-last"]
    assert found["rows"][0]["images_per_second"] > 0
    assert set(found["rows"][0]["phases"]) == {"forward", "backward", "optimizer", "EMA"}
    assert (found["stage"], found["batch_size"], found["pool_size"]) == ("denoiser", 8, 256)
    assert found["environment"]["hardware"]


def test_sampling_an_untrained_recipe(bench):
    code, out, err = bench(*SAMPLE)
    assert (code, err) == (0, "")
    assert [line.split()[:3] for line in out.splitlines()[2:4]] == [
        ["2", "2", "3"],
        ["3", "2", "5"],
    ]
    assert "per call and image" in out


def test_sampling_a_checkpoint(bench, tmp_path):
    network = ("--set", 'denoiser.network={ use = "mlp", width = 16, blocks = 1 }')
    with pytest.raises(SystemExit):
        main(["run", "smoke", *network, "--out", str(tmp_path / "run"), "--device", "cpu",
              "--set", "denoiser.images=256", "--set", "samples.count=8"])  # fmt: skip
    (file,) = (tmp_path / "run").glob("*/denoiser.safetensors")
    code, out, _ = bench(
        "sample", str(file), "--batch-size", "4", "--solver", "euler", "--rounds", "1", "--json",
        "--device", "cpu",
    )  # fmt: skip
    (row,) = json.loads(out)["rows"]
    assert code == 0
    assert (row["steps"], row["nfe"], row["batch_size"]) == (18, 19, 4)  # corrected start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "edm", "--variants", "fast"), 'got "fast"'),
        (("train", "no-such-recipe"), "no-such-recipe"),
        (("train", "edm", "--stage", "denoisr"), 'did you mean "denoiser"?'),
        (("train", "edm", "--device", "gpu"), 'no device is called "gpu"'),
        (("train", "edm", "--set", "denoiser.batch_sizes=3"), "batch_size"),
        (("sample", "edm", "--steps", "0"), "--steps"),
        (("sample", "gone.safetensors"), "gone.safetensors"),
        (("sample", "edm", "--data", "{ use"), "--data"),
    ],
)
def test_mistakes(bench, arguments, message):
    code, out, err = bench(*arguments)
    assert (code, out) == (2, "")
    assert message in err
