"""``genkit doctor``: each fault of an installation or a machine is a finding with a remedy."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from genkit.plugin.manager import Plugins, PluginStatus
from genkit.plugin.registry import Owner, Registry
from genkit_doctor import checks, imports
from genkit_doctor.checks import Finding, Status, devices, folders, memory, packages, plugins

OF_THE_MACHINE = ("device", "memory", "runs", "temporary files", "cache")


def bad(findings):
    return [f for f in findings if f.status in (Status.PROBLEM, Status.WARNING)]


def test_this_installation_is_sound(tmp_path, genkit_, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = genkit_("doctor", "--json")
    assert code == 0
    found = [Finding(**{**row, "status": Status(row["status"])}) for row in json.loads(out)]
    assert not [f for f in bad(found) if f.topic not in OF_THE_MACHINE]
    topics = {finding.topic for finding in found}
    assert {"versions", "packages", "torch", "device", "plugins", "runs", "cache"} <= topics
    monkeypatch.setattr(checks, "all_findings", lambda runs: found)  # not checked twice
    code, out, _ = genkit_("doctor")
    assert (code, "0 problems" in out) == (0, True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("pot", None, Status.PROBLEM),
        ("pot", "0.8.0", Status.PROBLEM),
        ("tensorboard", None, Status.NOTE),
        ("tensorboard", "1.0", Status.PROBLEM),
        ("ruff", None, None),  # of development
    ],
)
def test_packages(monkeypatch, package, version, status):
    real = metadata.version

    def changed(name):
        if name != package:
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", changed)
    found = {finding.topic: finding for finding in packages()}
    if status is None:
        assert package not in found
        return
    assert found[package].status is status
    assert found[package].remedy.startswith(f"pip install '{package}>=")


def test_a_problem_exits_with_2(genkit_, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # its import fails
    code, out, _ = genkit_("doctor", "--json")
    found = {row["topic"]: row for row in json.loads(out)}
    assert (code, found["torch"]["status"]) == (2, "problem")
    assert "pip install" in found["torch"]["remedy"]
    assert found["plugins"]["status"] == "ok"  # the other checks run


@pytest.mark.parametrize(
    ("driver", "cuda", "status", "remedy"),
    [
        (False, None, Status.NOTE, ""),
        (True, None, Status.WARNING, "https://pytorch.org"),
        (True, "12.8", Status.WARNING, "CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_is_not_used(monkeypatch, tmp_path, driver, cuda, status, remedy):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(checks, "_DRIVER", tmp_path if driver else tmp_path / "absent")
    (found,) = [finding for finding in devices() if finding.topic == "device"]
    assert found.status is status
    assert remedy in found.remedy


def test_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    size = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: size)
    found = [finding.text for finding in devices() if finding.topic == "device"]
    assert found == ["cuda:0: GPU 0, 80 GiB", "cuda:1: GPU 1, 80 GiB"]


def test_a_plugin_that_failed(monkeypatch):
    broken = PluginStatus(Owner("toys", "toy-box", "1.5"), reason="ValueError: no toy")
    monkeypatch.setattr(checks, "load_plugins", lambda _: Plugins(Registry(), (), (broken,)))
    found = next(plugins())
    assert (found.status, found.text) == (Status.PROBLEM, "ValueError: no toy")
    assert "pip uninstall toy-box" in found.remedy


def test_the_import_time_of_plugins(monkeypatch):
    quick, slow = (
        PluginStatus(Owner(name, "toy-box", "1.5"), seconds=seconds)
        for name, seconds in (("quick", 0.1), ("slow", 2.5))
    )
    monkeypatch.setattr(checks, "load_plugins", lambda _: Plugins(Registry(), (quick, slow), ()))
    monkeypatch.setattr(checks, "failed_imports", lambda plugin: {})
    found = {finding.topic: finding for finding in plugins()}
    assert found[str(quick.owner)].status is Status.OK
    assert "2.50 s" in found[str(slow.owner)].text
    assert (found[str(slow.owner)].status, bool(found[str(slow.owner)].remedy)) == (
        Status.WARNING,
        True,
    )


COMPONENTS = {
    "ending": "import os\nos._exit(3)",
    "sound": "from genkit_aot.hungarian import Hungarian as Part",
    "lacking": "import no_such_library",
    "interrupted": "raise KeyboardInterrupt",
    "printing": "print('text')\nfrom genkit_aot.hungarian import Hungarian as Part",
}


def test_components_of_third_party_plugins_are_imported(monkeypatch, tmp_path, installed):
    package = tmp_path / "toys"
    package.mkdir()
    project = '[project]\nname = "toy-box"\nversion = "1.5"\n'
    points = '[project.entry-points."genkit.plugins"]\ntoys = "toys_plugin"\n'
    (package / "pyproject.toml").write_text(project + points)
    added = [
        f'    registry.add("coupler", "toy-{name}", "toys_{name}:Part")' for name in COMPONENTS
    ]
    head = "from genkit.plugin import hookimpl\n@hookimpl\ndef genkit_register(registry):\n"
    (package / "toys_plugin.py").write_text(head + "\n".join(added))
    for name, text in COMPONENTS.items():
        (package / f"toys_{name}.py").write_text(text)
    installed(package, tmp_path / "site", monkeypatch)
    found = [finding for finding in plugins() if "toys" in finding.topic]
    assert found[0].status is Status.OK
    reasons = {
        "ending": "exit code 3",
        "lacking": "no_such_library",
        "interrupted": "KeyboardInterrupt",
    }
    assert len(found[1:]) == len(reasons)
    for name, reason in reasons.items():
        (finding,) = [finding for finding in found if f'"toy-{name}"' in finding.text]
        assert (finding.status, reason in finding.text) == (Status.PROBLEM, True), finding.text
        assert "toy-box" in finding.remedy


def test_a_process_that_ends_before_the_first_component(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(imports, "SECONDS", 0.01)
        (slow,) = imports.failed_imports("genkit-aot").values()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    (failed,) = imports.failed_imports("genkit-aot").values()
    assert ("genkit-aot" in slow, "within" in slow) == (True, True)
    assert ("genkit-aot" in failed, "exit code 1" in failed) == (True, True)


def test_disabled_plugins(monkeypatch):
    toys = PluginStatus(Owner("toys", "toy-box", "1.5"), reason="is disabled")
    found = Plugins(Registry(), (), (), (toys,))
    monkeypatch.setattr(checks, "load_plugins", lambda _: found)
    monkeypatch.setenv(checks.DISABLE, "toys,tots")
    note, warning, _ = plugins()
    assert (note.topic, note.status) == (str(toys.owner), Status.NOTE)
    assert (warning.status, "tots" in warning.text) == (Status.WARNING, True)


def test_a_full_disk(monkeypatch, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    found = {finding.topic: finding for finding in folders(tmp_path / "runs")}
    assert {f.status for f in found.values()} == {Status.PROBLEM}
    assert str(tmp_path) in found["runs"].text
    assert "--out" in found["runs"].remedy
    assert "TMPDIR" in found["temporary files"].remedy
    assert "XDG_CACHE_HOME" in found["cache"].remedy


def test_little_space(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=checks.MIN_DISK - 1))
    assert all(f.status is Status.WARNING and f.remedy for f in folders(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=checks.MIN_DISK))
    assert not bad(folders(tmp_path))


def test_no_home_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "cache_folder", lambda: None)
    (found,) = bad(folders(tmp_path))
    assert (found.topic, found.status) == ("cache", Status.WARNING)


def test_memory(monkeypatch, tmp_path):
    file = tmp_path / "meminfo"
    monkeypatch.setattr("genkit.parts.memory._MEMORY", file)
    assert not list(memory())  # a system without the file
    for kib, status in ((checks.MIN_MEMORY // 1024, Status.OK), (1024, Status.WARNING)):
        file.write_text(f"MemTotal: 1 kB\nMemAvailable:   {kib} kB\n")
        (found,) = memory()
        assert found.status is status
