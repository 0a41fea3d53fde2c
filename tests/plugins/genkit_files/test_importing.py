from __future__ import annotations

import errno
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from genkit import tensors
from genkit.api import load_denoiser
from genkit.errors import Code, DataError
from genkit.pickles import Call, Global
from genkit_edm.reference.networks import denoiser_from_reference, from_reference
from genkit_files import importing
from genkit_files.import_worker import RESULT
from raising import raises_code

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(edm_files):
    return edm_files.made_up()


@pytest.fixture
def file(edm_files, small, tmp_path):
    path = tmp_path / "network-snapshot-002500.pkl"
    path.write_bytes(edm_files.emitted(edm_files.snapshot(*small)))
    return path


def test_a_snapshot_becomes_a_denoiser(genkit_, file, small, tmp_path):
    out = tmp_path / "edm.safetensors"
    code, printed, err = genkit_("import-edm", file, out)
    assert (code, err) == (0, "")
    assert printed == (
        f"{out}: denoiser ddpmpp of 2,801 parameters, preconditioning edm, items of 1 x 8 x 8, "
        "no classes, trained for 2,500,000 images\n"
        f"Draw samples with: genkit sample {out} --out DIR\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, file.name]
    weights, precond, arguments = small
    theirs = {name: torch.from_numpy(values) for name, values in weights.items()}
    expected = denoiser_from_reference(theirs, precond, arguments)
    found = load_denoiser(out, "cpu")
    for name, values in expected.state_dict().items():
        assert torch.equal(found.module.state_dict()[name], values), name
    x, sigma = torch.ones(2, 1, 8, 8), torch.tensor([0.5, 2.0])
    with torch.no_grad():
        assert torch.equal(found(x, sigma), expected(x, sigma))
    code, _, err = genkit_(
        "sample",
        *(out, "--out", tmp_path / "samples", "--seeds", "0-1", "--steps", 2, "--rho", 90),
        *("--start", "noise"),
    )
    assert (code, err) == (0, "")
    assert (tmp_path / "samples" / "000001.png").is_file()


def test_a_training_state_is_told_from_an_average(genkit_, edm_files, small, tmp_path, inside):
    path, out = tmp_path / "training-state.pt", tmp_path / "edm.safetensors"
    path.write_bytes(edm_files.training_state(*small))
    code, printed, _ = genkit_("import-edm", path, out)
    assert code == 0
    assert "trained for an unknown number of images\n" in printed
    assert "not averaged" in printed
    assert out.is_file()


def test_mistakes_show_at_once(genkit_, file, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "read_in_process", None)
    out = tmp_path / "edm.safetensors"
    said = [
        ((tmp_path / "none.pkl", out), "none.pkl, which does not exist"),
        ((tmp_path, out), "must be a file, got the folder"),
        ((file, out, "--ema-length", 0.1), "must be a folder with --ema-length, got the file"),
        (
            (tmp_path / "none", out, "--ema-length", 0.1),
            "none, which does not exist",
        ),
        ((tmp_path, out, "--ema-length", 0.3), "to 0.2887, got 0.3"),
        ((tmp_path, out, "--ema-length", 0), "to 0.2887, got 0.0"),
        ((file, file), "must be a new file"),
        ((file, tmp_path / "no" / "edm.safetensors"), "create "),
    ]
    for arguments, message in said:
        code, printed, err = genkit_("import-edm", *arguments)
        assert (code, printed) == (2, "")
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_an_importer_is_named_by_its_table(genkit_, file, tmp_path, inside):
    out = tmp_path / "edm.safetensors"
    code, _, err = genkit_("import", file, out, "--as", '{ use = "edm", width = 3 }')
    assert (code, out.exists()) == (2, False)
    assert "width" in err
    assert genkit_("import", file, out, "--as", '{ use = "edm" }')[0] == 0


def test_an_unknown_importer_is_named_with_the_known_ones(genkit_, file, tmp_path):
    for name in ("nope", '{ use = "nope" }'):
        code, _, err = genkit_("import", file, tmp_path / "edm.safetensors", "--as", name)
        assert code == 2
        assert err.startswith('Error: no importer is called "nope"; ')
        assert err.endswith("known: adm-classifier, edm\n")


def test_a_bad_file_leaves_nothing_behind(genkit_, file, tmp_path, inside):
    file.write_bytes(file.read_bytes().replace(b"EDMPrecond", b"XDMPrecond"))
    code, printed, err = genkit_("import-edm", file, tmp_path / "edm.safetensors")
    assert (code, printed) == (2, "")
    assert err.startswith(f"Error: {file}: ")
    assert "XDMPrecond" in err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_neither_a_file_nor_its_folder_is_executed(genkit_, edm_files, file, tmp_path, monkeypatch):
    (tmp_path / "zipfile.py").write_text("import os; os.mkdir('imported')")  # nor is this run
    monkeypatch.chdir(tmp_path)
    file.write_bytes(edm_files.emitted(Call(Global("os", "mkdir"), ("executed",))))
    code, printed, err = genkit_("import-edm", file, tmp_path / "edm.safetensors")
    assert (code, printed) == (2, "")
    assert err.startswith(f"Error: {file}: ")
    assert "contains code, which genkit does not run: it imports os.mkdir" in err
    assert "invalid" not in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "zipfile.py"]


def gamma_of(length):
    """Return the exponent of the average of a relative length (EDM2, eq. 123)."""
    return brentq(lambda g: np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3))) - length, 0, 1e4)


class Trajectory:
    """Weights that move as polynomials in time, and their averages in closed form.

    The average of t^k up to T, with the profile (g + 1) t^g / T^(g + 1), is
    (g + 1) / (g + 1 + k) T^k.
    """

    END = 2**20

    def __init__(self, shapes):
        rng = np.random.default_rng(5)
        self.parts = {
            name: [rng.standard_normal(shape) for _ in range(3)] for name, shape in shapes.items()
        }

    def average(self, name, length, images):
        g = gamma_of(length)
        if name.endswith(("freqs", "phases")):  # buffers are not trained
            return self.parts[name][0]
        return np.asarray(
            sum(
                (g + 1) / (g + 1 + k) * (images / self.END) ** k * part
                for k, part in enumerate(self.parts[name])
            )
        )


@pytest.fixture
def training(edm_files, tmp_path):
    """A folder with EDM2's snapshots of a training whose weights are known at any time."""
    folder = tmp_path / "training"
    folder.mkdir()
    weights, precond, arguments = edm_files.made_up_edm2()
    trajectory = Trajectory({name: values.shape for name, values in weights.items()})

    def write(length, images, dtype, name=None, **changes):
        made = {key: trajectory.average(key, length, images).astype(dtype) for key in weights}
        tree = edm_files.edm2_snapshot(made, precond, {**arguments, **changes})
        name = name or f"network-snapshot-{images // 1000:07d}-{length:.3f}.pkl"
        (folder / name).write_bytes(edm_files.emitted(tree))

    return SimpleNamespace(
        folder=folder, write=write, made=(weights, precond, arguments), trajectory=trajectory
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 1e-3)])
def test_an_average_of_another_length(genkit_, training, tmp_path, inside, dtype, tolerance):
    end, out = Trajectory.END, tmp_path / "average.safetensors"
    for images in range(end // 8, end + 1, end // 8):
        for length in (0.05, 0.1, 0.2):
            training.write(length, images, dtype)
    training.write(0.05, 0, dtype)  # the initial weights, which EDM2 writes too
    code, printed, err = genkit_("import-edm", training.folder, out, "--ema-length", 0.08)
    assert (code, err) == (0, "")
    assert printed == (
        f"{out}: denoiser edm2 of 45,459 parameters, preconditioning edm, items of 1 x 8 x 8, "
        "3 classes, trained for 1,048,576 images, averaged over a relative length of 0.08\n"
        "Note: the snapshots represent an average of this length with an error of 0.10%.\n"
        f"Draw samples with: genkit sample {out} --out DIR\n"
    )
    assert tensors.metadata(out)["ema_length"] == "0.08"
    found, _ = tensors.load(out)
    errors = {}
    for length in (0.08, 0.1):
        theirs = {
            name: torch.from_numpy(training.trajectory.average(name, length, end))
            for name in training.made[0]
        }
        expected = from_reference(theirs, *training.made[1:])[2]
        assert found.keys() == expected.keys()
        mine, closed_form = (
            torch.cat([weights[name].flatten() for name in expected])
            for weights in (found, expected)
        )
        errors[length] = float((mine - closed_form).norm() / closed_form.norm())
    assert errors[0.08] < tolerance
    assert errors[0.1] > 0.02


def test_a_folder_that_makes_no_average(genkit_, edm_files, small, training, tmp_path, inside):
    end, folder, out = Trajectory.END, training.folder, tmp_path / "average.safetensors"

    def refused():
        code, printed, err = genkit_("import-edm", folder, out, "--ema-length", 0.08)
        assert (code, printed, err.count("\n")) == (2, "", 1)
        assert [path.name for path in tmp_path.iterdir()] == [folder.name]
        return err

    assert "*.pkl, got" in refused()
    training.write(0.05, 0, np.float16)
    assert "*.pkl, got" in refused()
    training.write(0.05, end // 2, np.float16)
    training.write(0.05, end // 2, np.float16, name="other-0000524-0.050.pkl")
    assert "got length 0.05 and 524,288 images for both" in refused()
    (folder / "other-0000524-0.050.pkl").unlink()
    training.write(0.1, end, np.float16, sigma_data=0.4)
    assert "network-snapshot-0001048-0.100.pkl must have the same network as" in refused()
    for name in ("network-snapshot-0001048-0.100.pkl", "a-0001048-0.900.pkl", "a-0001048.pkl"):
        (folder / "network-snapshot-0001048-0.100.pkl").unlink(missing_ok=True)
        training.write(0.1, end, np.float16, name=name)
        if name.startswith("a-"):
            assert f"{name} must be a snapshot" in refused()
            (folder / name).unlink()
    (folder / "network-snapshot-000012.pkl").write_bytes(
        edm_files.emitted(edm_files.snapshot(*small))
    )
    assert "network-snapshot-000012.pkl must be a snapshot" in refused()
    (folder / "network-snapshot-000012.pkl").write_bytes(b"no")
    assert "network-snapshot-000012.pkl: " in refused()


def test_a_process_that_fails_is_not_taken_for_the_one_before(
    genkit_, training, tmp_path, inside, monkeypatch
):
    for length in (0.05, 0.1):
        training.write(length, Trajectory.END, np.float16)
    run = subprocess.run

    def failing(command, **settings):
        if command[-2].endswith("0.050.pkl"):
            return run(command, **settings)
        return SimpleNamespace(stderr=b"killed", returncode=-9)

    monkeypatch.setattr(subprocess, "run", failing)
    out = tmp_path / "average.safetensors"
    code, printed, err = genkit_("import-edm", training.folder, out, "--ema-length", 0.08)
    assert (code, printed) == (2, "")
    assert "0.100.pkl cannot be read: the reading process failed: killed" in err


def test_one_edm2_snapshot_has_its_length(genkit_, training, tmp_path, inside):
    out = tmp_path / "edm2.safetensors"
    training.write(0.05, Trajectory.END, np.float16)
    (file,) = training.folder.iterdir()
    code, printed, _ = genkit_("import-edm", file, out)
    assert code == 0
    assert "trained for 1,048,576 images, averaged over a relative length of 0.05\n" in printed
    assert tensors.metadata(out)["ema_length"] == "0.05"


def test_a_full_disk_leaves_nothing_behind(genkit_, file, tmp_path, inside, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "edm.safetensors"
    monkeypatch.setattr("genkit.artifacts.NetworkFile.save", full)
    code, printed, err = genkit_("import-edm", file, out)
    assert (code, printed) == (2, "")
    assert f"{out}: No space left on device; resolve this" in err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_it_takes_no_longer_than_it_may(file, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "_MIN_SECONDS", 0)
    with raises_code(DataError, Code.DATA, "0 s"):
        importing.read_in_process({"use": "edm"}, file, tmp_path)


def test_a_process_that_fails_is_told(file, tmp_path):
    with raises_code(DataError, Code.DATA, "absent"):
        importing.read_in_process({"use": "edm"}, file, tmp_path / "absent")


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell what a process has")
def test_it_takes_no_more_memory_than_it_may(file, tmp_path):
    code = (
        "import sys\n"
        "from genkit_files.import_worker import main\n"
        "from genkit_edm.reference.importer import EdmImporter\n"
        "EdmImporter.read = lambda self, path: bytearray(2**30)\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, '{"use": "edm"}', str(file), str(tmp_path)]
    subprocess.run(command, check=True)
    found = json.loads((tmp_path / RESULT).read_text())
    reason = f"{file} takes more than 512 MiB of memory to read"
    assert found == {"error": reason, "code": "OUT_OF_MEMORY"}


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell what a process has")
def test_a_memory_bomb_ends_the_process_that_reads_it(genkit_, tmp_path):
    file, out = tmp_path / "network-snapshot-002500.pkl", tmp_path / "edm.safetensors"
    file.write_bytes(b"\x80\x04" + b"\x8f" * 2**22)  # a set of 216 bytes for each byte
    code, printed, err = genkit_("import-edm", file, out)
    assert (code, printed) == (2, "")
    assert "MiB of memory" in err or "the reading process failed" in err
    assert err.startswith(f"Error: {file}")
    assert err.count("\n") == 1
    assert not out.exists()
