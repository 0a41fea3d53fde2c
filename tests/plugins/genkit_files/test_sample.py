"""The command sample: what is drawn, kept and resumed."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genkit import tensors
from genkit.api import load_denoiser
from genkit.errors import Code, UsageError
from genkit_files.sample import parse_seeds
from raising import raises_code

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("coarse_pictures")]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_seed_gives_the_image_that_python_draws(genkit_, images, tmp_path):
    out = tmp_path / "out"
    arguments = ("--steps", 3, "--rho", 90, "--seeds", "7,0-2", "--device", "cpu", "--out", out)
    code, printed, err = genkit_("sample", images, *arguments)
    assert (code, err) == (0, "")
    assert printed == f"4 samples in {out}, of which 4 are new\n"
    named = {"000000.png", "000001.png", "000002.png", "000007.png", "grid.png", "sampling.json"}
    assert set(files(out)) == named
    drawn = load_denoiser(images, "cpu").sample([7], schedule={"steps": 3, "rho": 90.0})[0]
    with Image.open(out / "000007.png") as image:
        pixels = torch.from_numpy(np.array(image)).movedim(-1, 0)
    assert torch.equal(pixels, (drawn * 127.5 + 128).clamp(0, 255).to(torch.uint8))


def test_a_sample_does_not_depend_on_its_company(genkit_, images, tmp_path):
    common = ("--steps", 2, "--device", "cpu")
    genkit_("sample", images, "--seeds", "0-5", "--out", tmp_path / "a", *common)
    genkit_("sample", images, "--seeds", "5,3", "--batch-size", 1, "--out", tmp_path / "b", *common)
    one, other = files(tmp_path / "a"), files(tmp_path / "b")
    assert one["000003.png"] == other["000003.png"]
    assert one["000005.png"] == other["000005.png"]


def test_the_same_command_goes_on_and_draws_nothing_twice(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--steps", 2, "--device", "cpu", "--out", out)
    genkit_("sample", images, "--seeds", "0-3", *common)
    whole = files(out)
    (out / "000002.png").unlink()
    (out / "000001.png").write_bytes(whole["000003.png"])  # would be made anew if it were drawn
    code, printed, _ = genkit_("sample", images, "--seeds", "0-3", *common)
    assert (code, printed) == (0, f"4 samples in {out}, of which 1 are new\n")
    assert files(out)["000002.png"] == whole["000002.png"]
    assert files(out)["000001.png"] == whole["000003.png"]


def test_levels_are_fitted_to_data_and_kept(genkit_, points, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    common = ("--steps", 3, "--seeds", "0-2", "--device", "cpu", "--fit-to", "moons")
    for out in ("a", "b"):
        code, printed, _ = genkit_("sample", points, *common, "--out", tmp_path / out)
        assert code == 0
    (kept,) = (tmp_path / "cache").rglob("schedules/*.json")
    assert str(kept) in printed
    assert files(tmp_path / "a") == files(tmp_path / "b")
    schedule = {"use": "fitted", "levels": str(kept), "steps": 3}
    drawn = load_denoiser(points, "cpu").sample(3, schedule=schedule)
    plain = load_denoiser(points, "cpu").sample(3, schedule={"steps": 3})
    assert not torch.equal(drawn, plain)
    kept.write_text("damaged")  # it is fitted again
    assert genkit_("sample", points, *common, "--out", tmp_path / "c")[0] == 0
    assert files(tmp_path / "c") == files(tmp_path / "a")


@pytest.mark.parametrize("other", [("--rho", 3), ("--schedule", "linear")])
def test_levels_that_are_fitted_and_chosen_are_refused(genkit_, points, tmp_path, other):
    common = ("--fit-to", "moons", "--device", "cpu", "--out", tmp_path / "out")
    code, _, err = genkit_("sample", points, *common, *other)
    assert (code, "--fit-to" in err) == (2, True)


def test_data_of_another_shape_is_refused(genkit_, points, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "out"
    code, _, err = genkit_("sample", points, "--fit-to", "digits", "--device", "cpu", "--out", out)
    assert (code, "shape" in err) == (2, True)


def test_one_class(genkit_, images, tmp_path):
    common = ("--steps", 2, "--device", "cpu", "--seeds", "0-2")
    assert genkit_("sample", images, *common, "--out", tmp_path / "each")[0] == 0
    assert genkit_("sample", images, "--class", 2, *common, "--out", tmp_path / "one")[0] == 0
    each, one = files(tmp_path / "each"), files(tmp_path / "one")
    same = [each[f"00000{seed}.png"] == one[f"00000{seed}.png"] for seed in range(3)]
    assert same == [False, False, True]  # without it, sample k is of class k
    assert json.loads(one["sampling.json"])["class"] == 2


def test_vectors_are_written_as_arrays(genkit_, points, tmp_path):
    out = tmp_path / "out"
    genkit_(
        "sample", points, "--seeds", "0-2", "--solver", "euler", "--device", "cpu", "--out", out
    )
    drawn = load_denoiser(points, "cpu").sample(3, solver={"use": "euler"})
    assert np.array_equal(np.load(out / "000002.npy"), drawn[2].numpy())


def test_a_folder_in_which_nothing_was_drawn_takes_other_settings(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--steps", 2, "--seeds", "0-1", "--device", "cpu", "--out", out)
    noisy = '{ use = "heun", s_churn = 4.0, s_noise = 1e300 }'
    code, _, err = genkit_("sample", images, "--solver", noisy, *common)
    assert code == 2
    assert 'solver "heun" of plugin edm' in err
    assert set(files(out)) == {"sampling.json"}
    assert genkit_("sample", images, *common)[0] == 0
    assert json.loads((out / "sampling.json").read_text())["solver"] == {"use": "heun"}


def test_a_folder_of_an_earlier_version_has_derived_latents_and_starts_from_noise(
    genkit_, images, tmp_path
):
    out = tmp_path / "out"
    common = ("--steps", 2, "--seeds", "0-1", "--device", "cpu", "--out", out)
    assert genkit_("sample", images, *common)[0] == 0
    settings = json.loads((out / "sampling.json").read_text())
    del settings["latents"], settings["start"]
    (out / "sampling.json").write_text(json.dumps(settings))
    assert genkit_("sample", images, *common)[0] == 0
    assert genkit_("sample", images, "--start", "corrected", *common)[0] == 2
    assert genkit_("sample", images, "--latents", "edm", *common)[0] == 2


def test_an_infinite_setting_is_written_and_compared(genkit_, images, tmp_path):
    out, table = tmp_path / "out", '{ use = "heun", s_churn = 3.0, s_max = inf }'
    common = ("--steps", 2, "--seeds", "0-1", "--device", "cpu", "--out", out)
    for new in (2, 0):
        code, printed, err = genkit_("sample", images, "--solver", table, *common)
        assert (code, err) == (0, "")
        assert printed == f"2 samples in {out}, of which {new} are new\n"
    assert json.loads((out / "sampling.json").read_text())["solver"]["s_max"] == "inf"
    assert genkit_("sample", images, *common)[0] == 2


def test_samples_of_another_precision_are_not_mixed(genkit_, points, tmp_path):
    common = ("--steps", 2, "--seeds", "0-3", "--device", "cpu")
    exact, rounded = tmp_path / "exact", tmp_path / "rounded"
    assert genkit_("sample", points, *common, "--out", exact)[0] == 0
    bits = ("--precision", "bfloat16")
    code, _, err = genkit_("sample", points, *common, *bits, "--out", exact)
    assert (code, "with a different precision" in err) == (2, True)
    assert genkit_("sample", points, *common, *bits, "--out", rounded)[0] == 0
    one, other = (np.load(out / "000003.npy") for out in (exact, rounded))
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=0.1)
    code, _, err = genkit_("sample", points, *common, "--precision", "half", "--out", exact)
    assert (code, "precision must be float32, tf32" in err) == (2, True)


def test_draws_of_another_device_are_not_mixed(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--steps", 2, "--seeds", "0", "--device", "cpu", "--out", out)
    assert genkit_("sample", images, "--latents", "edm", *common)[0] == 0
    drawn_with = json.loads((out / "sampling.json").read_text())
    assert drawn_with["device"] == "cpu"
    (out / "sampling.json").write_text(json.dumps({**drawn_with, "device": "cuda"}))
    code, _, err = genkit_("sample", images, "--latents", "edm", *common)
    assert code == 2
    assert "with a different device" in err


def test_vectors_have_no_latents_of_edm(genkit_, points, tmp_path):
    out = tmp_path / "out"
    code, _, err = genkit_("sample", points, "--latents", "edm", "--device", "cpu", "--out", out)
    assert code == 2
    assert 'latents "edm" must be used with images, got items of shape [2]' in err
    assert not out.exists()


def test_a_folder_of_something_else_is_left_alone(genkit_, images, tmp_path):
    out = tmp_path / "out"
    common = ("--seeds", "0", "--device", "cpu", "--out", out)
    genkit_("sample", images, "--steps", 2, *common)
    before = files(out)
    code, _, err = genkit_("sample", images, "--steps", 3, *common)
    assert code == 2
    assert "with a different schedule" in err
    assert files(out) == before
    for content in ("{", "[]"):
        (out / "sampling.json").write_text(content)
        assert "must be a new folder" in genkit_("sample", images, "--steps", 2, *common)[2]
    (out / "sampling.json").unlink()
    assert "must be a new folder" in genkit_("sample", images, "--steps", 2, *common)[2]
    assert "got the file" in genkit_("sample", images, "--out", images)[2]


def test_seeds_come_once_and_in_their_order():
    assert parse_seeds("5, 7,6-8") == [5, 7, 6, 8]
    with raises_code(UsageError, Code.USAGE, "--seeds"):
        parse_seeds("1-2-3")


@pytest.mark.parametrize("content", [b"", b"no", "cut", "smaller"])
@pytest.mark.parametrize("kind", ["images", "points"])
def test_a_damaged_sample_is_named(genkit_, request, tmp_path, kind, content):
    out, checkpoint = tmp_path / "out", request.getfixturevalue(kind)
    common = ("--steps", 2, "--device", "cpu", "--seeds", "0-1", "--out", out)
    assert genkit_("sample", checkpoint, *common)[0] == 0
    (path,) = out.glob("000001.*")
    if content == "cut":
        content = path.read_bytes()[:-30]
    elif content == "smaller":
        held = io.BytesIO()
        if path.suffix == ".png":
            Image.new("RGB", (3, 4)).save(held, "png")
        else:
            np.save(held, np.zeros(3, np.float32))
        content = held.getvalue()
    path.write_bytes(content)
    code, printed, err = genkit_("sample", checkpoint, *common)
    assert (code, printed) == (2, "")
    assert f"{path} is corrupt" in err
    path.unlink()
    assert genkit_("sample", checkpoint, *common)[0] == 0


def test_samples_that_are_not_finite_leave_no_image(genkit_, points, tmp_path):
    weights, told = tensors.load(points)
    tensors.save(points, {name: tensor * 0 + 3e38 for name, tensor in weights.items()}, told)
    code, _, err = genkit_("sample", points, "--steps", 2, "--seeds", "3", "--out", tmp_path / "o")
    assert code == 2
    assert "samples must be finite, got NaN or infinity in sample 0 of 1" in err
    assert set(files(tmp_path / "o")) == {"sampling.json"}


def test_a_stop_tells_how_to_go_on(genkit_, images, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("genkit.denoiser.sample", stop)
    code, _, err = genkit_("sample", images, "--out", tmp_path / "out")
    assert code == 130
    assert "Run the same command to resume." in err


TOGETHER = """
import os, sys
import genkit.api, genkit_files.sample_files as place
from genkit.cli import main
save = place.SampleFiles.save
def noted(self, seed, item):
    with open("drawn", "a") as file:
        file.write(f"{os.environ['RANK']}:{seed} ")
    save(self, seed, item)
place.SampleFiles.save = noted
children = []
for rank in range(2):
    if (child := os.fork()) == 0:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        main()
        os._exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes are forked")
def test_processes_share_the_seeds(genkit_, images, tmp_path):
    common = ("--steps", "2", "--device", "cpu", "--seeds", "0-4")
    assert genkit_("sample", images, *common, "--out", tmp_path / "alone")[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ran = subprocess.run(
        [sys.executable, "-c", TOGETHER, "sample", str(images), *common, "--out", "both"],
        env={**os.environ, **where, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == ["5 samples in both, of which 5 are new", "[0, 0]"]
    drawn = sorted((tmp_path / "drawn").read_text().split())
    assert drawn == ["0:0", "0:2", "0:4", "1:1", "1:3"]
    assert files(tmp_path / "both") == files(tmp_path / "alone")
