"""Commands refuse pipes, devices and damaged files, with the exit codes of the documentation."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from genkit.errors import DamagedError
from genkit.tensors import save


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system")
@pytest.mark.parametrize("command", [["sample", "--out", "out"], ["verify"]])
def test_a_pipe_and_a_device_are_no_files(genkit_, tmp_path, command):
    os.mkfifo(tmp_path / "p.safetensors")
    for path, got in ((tmp_path / "p.safetensors", "a pipe"), (Path("/dev/zero"), "a device")):
        code, _, err = genkit_(*command, path)
        assert code == 2
        assert f"{path} must be a regular file, got {got}" in err


@pytest.mark.parametrize("size", [0, 5, 50, -1])
def test_a_file_that_was_cut_off_is_damaged(genkit_, tmp_path, size):
    path = tmp_path / "denoiser.safetensors"
    save(path, {"weight": torch.zeros(4)}, {"kind": "denoiser"})
    path.write_bytes(path.read_bytes()[:size])
    for command in (["sample", path, "--out", tmp_path / "out"], ["verify", path]):
        assert genkit_(*command)[0] == DamagedError.exit_code
    assert not (tmp_path / "out").exists()
