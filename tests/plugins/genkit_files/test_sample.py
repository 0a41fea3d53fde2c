from __future__ import annotations

import errno
import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genkit import tensors
from genkit.api import load_denoiser
from genkit.artifacts import DenoiserRef, DiscriminatorFile
from genkit.artifacts.coupling import Coupling
from genkit.cli import main
from genkit.errors import Code, SettingError, UsageError
from genkit.interfaces import BoundGuidance, Guidance, Network
from genkit.plugin.manager import load_plugins
from genkit.random import seeded
from genkit.recipe.decode import component
from genkit.recipe.encode import table
from genkit.settings import setting
from genkit.tensors import network_digest
from genkit.types import DataSpec
from genkit_edm.solvers.heun import Heun
from genkit_files.sample import parse_seeds
from raising import raises_code

pytestmark = pytest.mark.slow

MLP = {"use": "mlp-discriminator", "width": 8}


def save(path: Path, spec: DataSpec, kind: str = "denoiser", **settings) -> Path:
    """Write a network with random weights."""
    registry = load_plugins().registry
    network = component(registry, kind, settings)
    assert isinstance(network, Network)
    with seeded(0):  # all weights: those of outputs begin with zeros
        weights = {
            k: v + torch.randn(v.shape) / 4 for k, v in network.build(spec).state_dict().items()
        }
    coupling = Coupling(True, True, (), independent=True, preserves_score=True)
    network.output(table(registry, network), spec, weights, images=5, coupling=coupling).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    small = {"channels": 4, "channel_mult": (1,), "blocks": 1, "attention": ()}
    spec = DataSpec((3, 4, 4), classes=3)
    return save(tmp_path / "d.safetensors", spec, use="ddpmpp", class_conditional=True, **small)


@pytest.fixture
def points(tmp_path):
    return save(tmp_path / "p.safetensors", DataSpec((2,)), use="mlp", width=8)


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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds", "9-2"), "write 2-9"),
        (("--seeds", "a"), 'got "a"; write 0-63'),
        (("--seeds", "-5"), 'got "-5"; write 0-63'),
        (("--seeds", str(2**63)), f'--seeds must be from 0 to {2**63 - 1}, got "{2**63}"'),
        (("--latents", "edn"), 'did you mean "edm"'),
        (("--latents", "{ seed = 1 }"), "latents.seed: ...[unknown-key]"),
        (
            ("--solver", '{ use = "heun", path = "vp", path_range = [0.5, 80.0] }'),
            "at most 0.093, or path",
        ),
        (("--seeds", "0-99999999"), "at most 10,000,000 seeds"),
        (("--seeds", "0-9,10-10000009"), 'got "0-9,10-10000009"'),
        (("--steps", "0"), "schedule.steps: ...got 0 [out-of-range]"),
        (("--rho", "-1"), "schedule.rho: ...got -1.0 [out-of-range]"),
        (("--rho", "nan"), "rho: ...got nan [out-of-range]"),
        (("--schedule", '{ use = "edm", sigma_min = 90.0 }'), "sigma_max = 80"),
        (("--schedule", "edn"), 'did you mean "edm"'),
        (("--class", "3"), "got 3; write 0 to 2"),
        (("--device", "gpu"), 'no device is called "gpu"'),
    ],
)
def test_mistakes(genkit_, images, tmp_path, arguments, said):
    code, printed, err = genkit_("sample", images, "--out", tmp_path / "out", *arguments)
    assert (code, printed) == (2, "")
    assert all(part in err for part in said.split("...")), err
    assert not (tmp_path / "out").exists()


def test_what_is_no_checkpoint(genkit_, tmp_path):
    (tmp_path / "x").write_bytes(b"no")
    for name, said in (
        ("absent", "absent, which does not exist"),
        ("", "the folder"),
        ("x", "write the path of a .safetensors file"),
    ):
        code, _, err = genkit_("sample", tmp_path / name, "--out", tmp_path / "out")
        assert code == 2
        assert said in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "told",
    [
        {"spec": "{"},
        {"spec": '{"shape": 5}'},
        {"spec": '{"shape": [2], "more": 1}'},
        {"network": "{"},
        {"images": "{}"},
    ],
)
def test_a_description_that_makes_no_network(genkit_, points, tmp_path, told):
    weights, metadata = tensors.load(points)
    tensors.save(points, weights, {**metadata, **told})
    code, _, err = genkit_("sample", points, "--device", "cpu", "--out", tmp_path / "out")
    assert code == 2
    assert f"Error: {points}: its description does not describe a network\n" == err
    assert not (tmp_path / "out").exists()


def test_the_first_name_or_shape_that_differs_is_reported(genkit_, points, tmp_path):
    weights, metadata = tensors.load(points)
    first = next(iter(load_denoiser(points, "cpu").module.state_dict()))
    others = {name: tensor for name, tensor in weights.items() if name != first}
    for changed, said in (
        (others, first),
        ({**others, first: torch.zeros(7)}, "got float32 of shape [7]"),
        ({**weights, "more": torch.zeros(1)}, "more"),
    ):
        tensors.save(points, changed, metadata)
        code, _, err = genkit_("sample", points, "--device", "cpu", "--out", tmp_path / "out")
        assert code == 2
        assert f"Error: {points}: the weights do not fit the network: " in err
        assert said in err
    assert not (tmp_path / "out").exists()


def test_what_another_command_makes_a_checkpoint_of(genkit_, tmp_path):
    for name, command in ((".", "export"), ("network-snapshot-1.pkl", "import ")):
        code, _, err = genkit_("sample", tmp_path / name, "--out", tmp_path / "out")
        assert code == 2
        assert f"genkit {command}" in err


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


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), "x.png: No space left on"),
        (MemoryError(), "out of memory; write a --batch-size below 3"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out of memory; write a --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: ..."), "out of memory; write"),
    ],
)
def test_what_the_user_can_mend_is_told(genkit_, images, tmp_path, monkeypatch, error, said):
    def fail(*arguments, **settings):
        raise error

    monkeypatch.setattr("genkit.denoiser.sample", fail)
    common = ("--steps", 2, "--seeds", "0-3", "--batch-size", 3, "--device", "cpu")
    code, printed, err = genkit_("sample", images, *common, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert said in err
    assert "the same command" in err
    monkeypatch.undo()
    assert genkit_("sample", images, *common, "--out", tmp_path / "out")[0] == 0


def test_a_stop_tells_how_to_go_on(genkit_, images, tmp_path, monkeypatch):
    def stop(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("genkit.denoiser.sample", stop)
    code, _, err = genkit_("sample", images, "--out", tmp_path / "out")
    assert code == 130
    assert "Run the same command to resume." in err


def test_an_error_of_the_program_is_not_taken_for_one_of_the_users(genkit_, images, monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("genkit.denoiser.sample", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["sample", str(images), "--out", str(images.parent / "out")])


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


GUIDE = "{{ use = \"discriminator\", discriminator = '{}', weight = {} }}"


@pytest.fixture
def judge(points, tmp_path):
    """Return the file of a discriminator that was trained on the denoiser of points."""
    path = save(tmp_path / "j.safetensors", DataSpec((2,)), "discriminator", **MLP)
    digest = network_digest(load_denoiser(points, "cpu").trained.module)
    replace(DiscriminatorFile.load(path), denoiser_digest=digest).save(path)
    return path


def test_guided_samples_are_those_of_python_and_of_a_run(genkit_, points, judge, tmp_path):
    common = ("--steps", 3, "--seeds", "0-4", "--batch-size", 2, "--device", "cpu")
    out, text = tmp_path / "out", GUIDE.format(judge, 2.0)
    assert genkit_("sample", points, *common, "--guidance", text, "--out", out)[0] == 0
    denoiser = load_denoiser(points, "cpu")
    table = {"use": "discriminator", "discriminator": judge, "weight": 2.0}
    guided = denoiser.sample(5, schedule={"steps": 3}, guidance=table, batch_size=2)
    plain = denoiser.sample(5, schedule={"steps": 3}, batch_size=2)
    for seed in range(5):
        assert np.array_equal(np.load(out / f"{seed:06d}.npy"), guided[seed].numpy())
    assert not torch.allclose(guided, plain, rtol=1e-3)
    bound = denoiser.bind_guidance([table])
    again = denoiser.sample(5, schedule={"steps": 3}, guidance=bound, batch_size=2)
    assert torch.equal(again, guided)
    idle = {**table, "weight": 0.0}
    none = denoiser.sample(5, schedule={"steps": 3}, guidance=idle, batch_size=2)
    assert torch.equal(none, plain)


def test_two_guidances_are_summed(points, judge):
    denoiser = load_denoiser(points, "cpu")
    table = {"use": "discriminator", "discriminator": str(judge)}
    double = denoiser.sample(3, schedule={"steps": 3}, guidance={**table, "weight": 2.0})
    twice = denoiser.sample(3, schedule={"steps": 3}, guidance=[table, table])
    torch.testing.assert_close(twice, double, rtol=1e-5, atol=1e-5)


def test_classifier_free_and_autoguidance_act_on_files(genkit_, tmp_path):
    spec, shared = DataSpec((2,), classes=3), {"use": "mlp", "width": 8, "blocks": 1}
    own = {"class_conditional": True, "label_dropout": 0.1}
    path = save(tmp_path / "c.safetensors", spec, **own, **shared)
    guide = save(tmp_path / "g.safetensors", spec, **{**shared, "width": 4})
    both = [
        {"use": "classifier-free", "weight": 0.5},
        {"use": "autoguidance", "guide": str(guide), "weight": 0.5},
    ]
    denoiser = load_denoiser(path, "cpu")
    steps = {"steps": 3, "sigma_max": 5.0}
    plain = denoiser.sample(4, schedule=steps)
    found = denoiser.sample(4, schedule=steps, guidance=both)
    assert not torch.allclose(found, plain, rtol=1e-3)
    texts = [
        '{ use = "classifier-free", weight = 0.5 }',
        f"{{ use = \"autoguidance\", guide = '{guide}', weight = 0.5 }}",
    ]
    schedule = ("--schedule", '{ use = "edm", steps = 3, sigma_max = 5.0 }', "--device", "cpu")
    given = [argument for text in texts for argument in ("--guidance", text)]
    common = ("sample", path, "--seeds", "0-3", *schedule, "--out", tmp_path / "out")
    assert genkit_(*common, *given)[0] == 0
    for seed in range(4):
        drawn = np.load(tmp_path / "out" / f"{seed:06d}.npy")
        assert np.allclose(drawn, found[seed].numpy(), atol=1e-6)


def test_samples_of_another_guidance_are_not_mixed(genkit_, points, judge, tmp_path):
    common = ("sample", points, "--steps", 2, "--seeds", "0-1", "--device", "cpu")
    out, text = ("--out", tmp_path / "out"), GUIDE.format(judge, 1.0)
    assert genkit_(*common, *out, "--guidance", text)[0] == 0
    assert genkit_(*common, *out, "--guidance", text)[0] == 0
    for other in ((), ("--guidance", GUIDE.format(judge, 2.0)), ("--guidance", text) * 2):
        code, _, err = genkit_(*common, *out, *other)
        assert code == 2
        assert "with a different guidance" in err
    save(judge, DataSpec((2,)), "discriminator", use="mlp-discriminator", width=16)
    code, _, err = genkit_(*common, *out, "--guidance", text)
    assert (code, "with a different guidance" in err) == (2, True)


def test_samples_of_another_file_of_a_component_are_not_mixed(
    genkit_, points, tmp_path, monkeypatch
):
    common = ("sample", points, "--steps", 2, "--device", "cpu", "--out", tmp_path / "out")
    assert genkit_(*common, "--seeds", "0")[0] == 0
    monkeypatch.setattr(Heun, "version", lambda self: "another file")
    code, _, err = genkit_(*common, "--seeds", "1")
    assert (code, "with a different file" in err) == (2, True)


def test_guidance_that_does_not_fit_is_refused_before_anything_is_drawn(
    genkit_, points, judge, tmp_path
):
    shaped = save(tmp_path / "3.safetensors", DataSpec((3,)), "discriminator", **MLP)
    told = save(
        tmp_path / "c.safetensors",
        DataSpec((2,), classes=4),
        "discriminator",
        class_conditional=True,
        **MLP,
    )
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(judge.read_bytes()[:100])
    said = [
        (
            GUIDE.format(tmp_path / "none.safetensors", 1.0),
            "none.safetensors: cannot be read as safetensors: No such file",
        ),
        (GUIDE.format("~nobody-of-this-name/d", 1.0), "guidance.discriminator: ~nobody"),
        (GUIDE.format(points, 1.0), "must be a discriminator, got a denoiser"),
        (GUIDE.format(damaged, 1.0), f"guidance.discriminator: {damaged}: cannot be read"),
        (GUIDE.format(shaped, 1.0), "must be trained on items of the denoiser's shape (2,)"),
        (GUIDE.format(told, 1.0), "classes or on none, got 4"),
        (GUIDE.format(judge, -1.0), "weight: must be at least 0"),
        (GUIDE.format(judge, 1.0).replace("weight", "wieght"), 'did you mean "weight"'),
        (
            '{ use = "discriminator" }',
            "guidance.discriminator: missing: the path of a discriminator file; write",
        ),
        ("discrimnator", 'did you mean "discriminator"'),
        ("{ use = ", "must be a name or a TOML table"),
        (
            '{ use = "discriminator", discriminator = 3 }',
            "must be the path of a discriminator file",
        ),
        (GUIDE.format(judge, 1.0).replace("weight = 1.0", "sigma_min = 30"), "below sigma_max"),
    ]
    out = tmp_path / "out"
    for text, message in said:
        code, printed, err = genkit_(
            "sample", points, "--guidance", text, "--device", "cpu", "--out", out
        )
        assert (code, printed) == (2, ""), text
        assert message in err, err
        assert "Traceback" not in err
    assert not out.exists()


@pytest.mark.parametrize("wrong", [3, [None], [[]], {"weight": 1.0}])
def test_what_is_no_guidance_is_refused(points, wrong):
    with pytest.raises(SettingError):
        load_denoiser(points, "cpu").sample(1, guidance=wrong)


class BoundBetween(BoundGuidance):
    def __init__(self, weaker, others):
        self.weaker = weaker
        self.others = others

    def correction(self, x, sigma, labels, denoised, *, inner=False):
        self.evaluations += 1 + len(self.others)
        mean = sum(other(x, sigma, labels) for other in self.others) / len(self.others)
        return self.weaker(x, sigma, labels) - mean


@dataclass(frozen=True, kw_only=True)
class Between(Guidance):
    """A third-party guidance with several references."""

    weaker: DenoiserRef = setting(doc="a denoiser")
    others: tuple[DenoiserRef, ...] = setting(doc="more denoisers")

    def bind(self, inputs, denoiser):
        modules = [inputs.network(name).module for name in (self.weaker, *self.others)]
        return BoundBetween(modules[0], modules[1:])


def test_a_third_partys_guidance_may_have_any_number_of_references(points, tmp_path):
    other = save(tmp_path / "o.safetensors", DataSpec((2,)), use="mlp", width=4)
    denoiser = load_denoiser(points, "cpu")
    same = Between(weaker=str(points), others=(str(points),))
    plain = denoiser.sample(2, schedule={"steps": 2})
    assert torch.equal(denoiser.sample(2, schedule={"steps": 2}, guidance=same), plain)
    differs = Between(weaker=str(points), others=(str(points), str(other)))
    assert not torch.equal(denoiser.sample(2, schedule={"steps": 2}, guidance=differs), plain)
    missing = Between(weaker=str(points), others=(str(tmp_path / "none.safetensors"),))
    with raises_code(SettingError, Code.NOT_FOUND, "guidance.others.0", "none.safetensors"):
        denoiser.sample(2, guidance=missing)
