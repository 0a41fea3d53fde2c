"""Invalid arguments and files of the command ``sample``."""

from __future__ import annotations

import errno

import pytest
import torch

from genkit import tensors
from genkit.api import load_denoiser
from genkit.cli import main

pytestmark = pytest.mark.slow


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


def test_an_error_of_the_program_is_not_taken_for_one_of_the_users(genkit_, images, monkeypatch):
    def fail(*arguments, **settings):
        raise RuntimeError("a bug")

    monkeypatch.setattr("genkit.denoiser.sample", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["sample", str(images), "--out", str(images.parent / "out")])
