from __future__ import annotations

import errno
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from genkit.api import load_denoiser
from genkit.commands import import_edm, import_worker
from genkit.commands.import_worker import FOUND
from genkit.errors import DataError
from genkit.pickles import Call, Global
from genkit_edm.reference import denoiser_from_reference


@pytest.fixture(scope="module")
def small(edm_files):
    return edm_files.made_up()


@pytest.fixture
def file(edm_files, small, tmp_path):
    path = tmp_path / "network-snapshot-002500.pkl"
    path.write_bytes(edm_files.emitted(edm_files.snapshot(*small)))
    return path


@pytest.fixture
def inside(monkeypatch):
    """Files are read in this process, which spares starting another: that takes seconds."""

    def run(command, **settings):
        import_worker.main(command[command.index(import_worker.__name__) + 1 :])
        return SimpleNamespace(stderr=b"", returncode=0)

    monkeypatch.setattr(import_worker, "limit_memory", lambda more: None)
    monkeypatch.setattr(subprocess, "run", run)


def test_a_snapshot_becomes_a_denoiser(genkit_, file, small, tmp_path):
    out = tmp_path / "edm.safetensors"
    code, printed, err = genkit_("import-edm", file, out)
    assert (code, err) == (0, "")
    assert printed == (
        f"{out}: ddpmpp of 2,801 parameters, preconditioning edm, images of 1 x 8 x 8, "
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
        "sample", out, "--out", tmp_path / "samples", "--seeds", "0-1", "--steps", 2, "--rho", 90
    )
    assert (code, err) == (0, "")
    assert (tmp_path / "samples" / "000001.png").is_file()


def test_a_training_state_is_told_from_an_average(genkit_, edm_files, small, tmp_path, inside):
    path, out = tmp_path / "training-state.pt", tmp_path / "edm.safetensors"
    path.write_bytes(edm_files.training_state(*small))
    code, printed, _ = genkit_("import-edm", path, out)
    assert code == 0
    assert "trained for a number of images that the file's name does not tell\n" in printed
    assert "Note: these weights are not averaged: a training state's.\n" in printed
    assert out.is_file()


def test_mistakes_show_at_once(genkit_, file, tmp_path, monkeypatch):
    monkeypatch.setattr(import_edm, "read_apart", None)
    out = tmp_path / "edm.safetensors"
    said = [
        ((tmp_path / "none.pkl", out), "none.pkl is no file; name a network snapshot"),
        ((tmp_path, out), "is no file; name a network snapshot"),
        ((file, file), "exists; move it away, or write another name"),
        ((file, tmp_path / "no" / "edm.safetensors"), "is no folder; make it first"),
    ]
    for arguments, message in said:
        code, printed, err = genkit_("import-edm", *arguments)
        assert (code, printed) == (2, "")
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


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
    assert "it asks for os.mkdir, which has no place" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name, "zipfile.py"]


def test_a_full_disk_leaves_nothing_behind(genkit_, file, tmp_path, inside, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "edm.safetensors"
    monkeypatch.setattr("genkit.train.checkpoint.save_network", full)
    code, printed, err = genkit_("import-edm", file, out)
    assert (code, printed) == (2, "")
    assert f"{out}: No space left on device; when that is mended, give the same command" in err
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_it_takes_no_longer_than_it_may(file, tmp_path, monkeypatch):
    monkeypatch.setattr(import_edm, "_LEAST_SECONDS", 0)
    with pytest.raises(DataError, match="takes more than 0 s to read"):
        import_edm.read_apart("edm", file, tmp_path)


def test_a_process_that_fails_is_told(file, tmp_path):
    with pytest.raises(DataError, match=r'the process that reads it failed: .*"none"'):
        import_edm.read_apart("none", file, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell what a process has")
def test_it_takes_no_more_memory_than_it_may(file, tmp_path):
    code = (
        "import sys\n"
        "from genkit.commands.import_worker import main\n"
        "from genkit_edm.importer import EdmImporter\n"
        "EdmImporter.read = lambda self, path: bytearray(2**30)\n"
        "main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "edm", str(file), str(tmp_path)]
    subprocess.run(command, check=True)
    found = json.loads((tmp_path / FOUND).read_text())
    assert found == {"error": f"{file} takes more than 512 MiB of memory to read"}
