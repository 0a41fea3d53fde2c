"""Plugins that would damage a command on import are found in another process, and not loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from genkit.errors import Code, PluginError
from genkit.plugin import manager, probe
from genkit.plugin.manager import OURS, load_plugins
from misbehaving import FAULTS
from raising import raises_code

pytestmark = pytest.mark.slow

GOOD = """
from genkit.plugin import hookimpl

@hookimpl
def genkit_register(registry):
    print("a hook")
    registry.add("coupler", "good", "toy:Nothing")

print("an import")
"""

ON_EXIT = "import os; os._exit(5)"


@pytest.fixture
def probes(monkeypatch):
    """Return a list to which each started process is added."""
    started = []
    start = subprocess.Popen

    def counted(*arguments, **options):
        started.append(arguments)
        return start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    return started


@pytest.fixture
def reason(install):
    """Return the reason for which the plugin ``bad`` is not loaded; empty if it is loaded."""

    def find(probe_seconds=None):
        plugins = load_plugins(probe_seconds)
        statuses = plugins.loaded + plugins.failed + plugins.disabled
        (status,) = [s for s in statuses if s.owner.plugin == "bad"]
        return status.reason

    return find


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_misbehaving_plugins_are_named_and_the_others_work(
    install, genkit_, monkeypatch, probes, tmp_path
):
    monkeypatch.setattr(probe, "PROBE_SECONDS", 4.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("GENKIT_DISABLE_PLUGINS", "immiscible,semidiscrete")  # may be installed
    for name, (code, _) in FAULTS.items():
        install(name, code)
    install("the-good", GOOD)
    streams = sys.stdout, sys.stderr
    for turn in range(2):
        code, out, err = genkit_("list-plugins", "--json")
        assert (code, "an import" in err, "a hook" in err) == (0, turn == 0, True)
        listed = {row["plugin"]: row for row in json.loads(out)["plugins"]}
        reasons = {n: row["reason"] for n, row in listed.items() if row["status"] == "failed"}
        assert reasons.keys() == FAULTS.keys(), reasons
        missing = {n: reasons[n] for n, (_, part) in FAULTS.items() if part not in reasons[n]}
        assert not missing
        assert [part["name"] for part in listed["the-good"]["components"]] == ["good"]
    assert len(probes) == 1
    assert not any(f"toy_{name.replace('-', '_')}" in sys.modules for name in FAULTS)
    assert (os.environ["OMP_NUM_THREADS"], Path.cwd()) == ("1", tmp_path)
    assert (sys.stdout, sys.stderr) == streams
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, "plugin loop (loop 1.5)", "line 2"):
        load_plugins().registry.find(["coupler"], "good-one")


def test_changes_without_an_effect_on_a_command_are_accepted(
    install, reason, monkeypatch, tmp_path
):
    lines = (
        "import atexit, logging, os, random, rich.console, sys, warnings",
        "atexit.register(int); logging.captureWarnings(True); warnings.simplefilter('ignore')",
        "sys.meta_path.append(sys.meta_path[-1]); sys.path_hooks.append(sys.path_hooks[-1])",
        f"sys.path.append({str(tmp_path)!r}); sys.setrecursionlimit(5000); random.random()",
        "os.environ['KMP_INIT_AT_FORK'] = 'FALSE'",  # as scikit-learn
    )
    for name in ("meta_path", "path_hooks"):  # the plugin is also imported in this process
        monkeypatch.setattr(sys, name, [*getattr(sys, name)])
    install("bad", "\n".join(lines))
    assert "has no hook" in reason()


def test_another_thread_does_not_replace_stdout(install, capsys):
    install("the-good", GOOD)
    load_plugins()
    assert "a hook" in capsys.readouterr().err
    thread = threading.Thread(target=load_plugins)
    thread.start()
    thread.join()
    assert "a hook" in capsys.readouterr().out


def test_own_plugins_are_not_probed(install, probes, monkeypatch):
    owners = {s.owner for s in load_plugins().loaded if s.owner.distribution != OURS}
    ours = [distribution for distribution in manager._distributions() if distribution.name == OURS]
    monkeypatch.setattr(manager, "_distributions", lambda: ours)
    probes.clear()
    found = load_plugins()
    assert not probes
    assert not owners & {status.owner for status in found.loaded}


@pytest.mark.parametrize("forks", [True, False])
def test_each_plugin_has_its_own_process(install, monkeypatch, forks):
    monkeypatch.setattr(probe, "_FORKS", forks and probe._FORKS)
    install("a-bad", ON_EXIT)
    install("b-bad", "import os; os.environ['TOY'] = 'changed'")
    install("good", GOOD)
    plugins = load_plugins()
    first, second = plugins.failed
    assert "exit code 5" in first.reason
    assert "TOY" in second.reason
    (good,) = [status for status in plugins.loaded if status.owner.plugin == "good"]
    assert good.seconds > 0


def test_a_verdict_is_stored(install, reason, probes):
    install("bad", ON_EXIT)
    assert "exit code 5" in reason()
    assert "exit code 5" in reason()
    assert len(probes) == 1


def test_a_corrupt_verdict_is_replaced(install, reason, probes, tmp_path):
    install("bad", ON_EXIT)
    reason()
    (file,) = [f for f in (tmp_path / "cache").rglob("*.json") if b"exit" in f.read_bytes()]
    sound = file.read_bytes()
    wrong = json.dumps(json.loads(sound) | {"reason": None}).encode()
    for count, content in enumerate([b"", b"\xff", b"[" * 100_000, wrong], start=2):
        file.write_bytes(content)
        probe._probe_all.cache_clear()  # as in the next command
        assert "exit code 5" in reason()
        assert (len(probes), len(file.read_bytes())) == (count, len(sound))


@pytest.mark.parametrize("folder", ["file", None])
def test_no_cache(install, reason, probes, monkeypatch, tmp_path, folder):
    (tmp_path / "file").touch()
    monkeypatch.setattr(probe, "cache_folder", lambda: folder and tmp_path / folder)
    install("bad", ON_EXIT)
    for _ in range(3):
        assert "exit code 5" in reason()
    # The second probe is without the plugins that the first call imported.
    assert len(probes) <= 2


def test_an_edited_plugin_is_probed_again(install, reason, tmp_path):
    install("bad", ON_EXIT)
    assert reason()
    (tmp_path / "toy_bad.py").write_text(GOOD)
    assert not reason()


def test_an_edited_module_of_a_package_is_probed_again(install, reason, tmp_path):
    package = tmp_path / "space" / "toys"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from space.toys.hooks import genkit_register")
    (package / "hooks.py").write_text(ON_EXIT)
    install("bad", "", value="space.toys")
    assert reason()
    (package / "hooks.py").write_text(GOOD)
    assert not reason()


def test_a_plugin_is_probed_again_when_a_package_is_installed(install, reason, tmp_path):
    install("bad", "from dependency import hook")
    (tmp_path / "dependency.py").write_text(ON_EXIT)
    assert reason()
    (tmp_path / "dependency.py").write_text("hook = 1")
    assert reason()
    (tmp_path / "dependency-2.0.dist-info").mkdir()
    assert "has no hook" in reason()


def test_an_error_is_not_stored(install, reason, monkeypatch):
    install("bad", f"{GOOD}\nimport os\nif 'TOY' not in os.environ: raise ValueError('no toy')")
    assert "ValueError: no toy" in reason()
    monkeypatch.setenv("TOY", "1")
    assert not reason()


def test_a_slow_import_is_accepted_by_a_longer_probe(install, reason, monkeypatch):
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.1)
    install("bad", f"import time\ntime.sleep(1.0)\n{GOOD}")
    assert "must be imported within" in reason()
    assert not reason(probe_seconds=30.0)
    assert not reason()


def test_a_process_that_cannot_be_started_is_no_fault(install, reason, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("no memory")

    install("bad", GOOD)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert not reason()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [9, 15])
def test_a_plugin_that_kills_the_probe_of_all_is_found(install, number):
    install("bad", f"import os; os.kill(os.getppid(), {number})")
    for name in ("a-good", "good"):
        install(name, GOOD.replace("good", name))
    plugins = load_plugins()
    (bad,) = plugins.failed
    assert f"signal {number}" in bad.reason
    assert {"a-good", "good"} <= {status.owner.plugin for status in plugins.loaded}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_probes_end_when_genkit_is_killed(install, tmp_path):
    lines = (
        "import faulthandler, os, pathlib",
        f"pathlib.Path({str(tmp_path / 'new')!r}).write_text(str(os.getpid()))",
        f"os.replace({str(tmp_path / 'new')!r}, {str(tmp_path / 'pid')!r})",
        "faulthandler.cancel_dump_traceback_later()",
        "while True: pass",
    )
    install("bad", "\n".join(lines))
    path = os.pathsep.join([str(tmp_path), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path)}
    genkit = subprocess.Popen(
        [sys.executable, "-m", "genkit", "list-plugins"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "pid").exists():
        assert genkit.poll() is None
        time.sleep(0.01)
    genkit.kill()
    genkit.wait()
    pid = int((tmp_path / "pid").read_text())
    with suppress(ProcessLookupError):
        for _ in range(3000):
            os.kill(pid, 0)
            time.sleep(0.01)
        pytest.fail("the process is still running")


def test_an_imported_plugin_is_not_probed(install, reason, probes):
    install("bad", GOOD)
    assert not reason()
    probes.clear()
    (status,) = [s for s in load_plugins().loaded if s.owner.plugin == "bad"]
    assert (status.seconds, probes) == (None, [])


def test_other_plugins_are_not_loaded_in_a_probe(install, reason, tmp_path):
    install("another", GOOD)
    lines = (
        "from genkit.plugin.manager import load_plugins",
        f"with open({str(tmp_path / 'seen')!r}, 'a') as file:",
        "    print(*[status.owner.plugin for status in load_plugins().failed], file=file)",
        "import os; os._exit(0)",
    )
    install("bad", "\n".join(lines))
    assert "exit code 0" in reason()
    (seen,) = (tmp_path / "seen").read_text().splitlines()
    assert {"bad", "another"} <= {*seen.split()}


def test_concurrent_processes_probe_once(install, tmp_path):
    """As the ranks of ``torchrun``, which must agree on the plugins."""
    mark = f"open({str(tmp_path / 'seen')!r}, 'a').write('x')"
    install("bad", f"import time\ntime.sleep(0.5)\n{mark}\nimport os; os._exit(0)")
    code = "from genkit.plugin.manager import load_plugins; print(*load_plugins().failed)"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path)},
        )
        for _ in range(2)
    ]
    assert all(b"exit code 0" in rank.communicate()[0] for rank in ranks)
    assert (tmp_path / "seen").read_text() == "x"


def test_disabled_plugins_are_listed_and_not_imported(install, genkit_, monkeypatch, probes):
    monkeypatch.setenv("GENKIT_DISABLE_PLUGINS", "bad, immiscible,semidiscrete")
    install("bad", ON_EXIT)
    listed = json.loads(genkit_("list-plugins", "--json")[1])["plugins"]
    (row,) = [row for row in listed if row["plugin"] == "bad"]
    assert (row["status"], row["components"]) == ("disabled", [])
    assert "GENKIT_DISABLE_PLUGINS" in row["reason"]
    assert not probes
    with raises_code(PluginError, Code.UNKNOWN_COMPONENT, "GENKIT_DISABLE_PLUGINS"):
        load_plugins().registry.find(["coupler"], "bad")


@pytest.mark.slow
def test_the_state_of_pytorch(install):
    for name, code in (
        ("dtype", "torch.set_default_dtype(torch.float64)"),
        ("device", "torch.set_default_device('meta')"),
        ("mode", "torch.set_grad_enabled(False)"),
        ("sound", ""),
    ):
        install(name, f"import torch\n{code}")
    reasons = {status.owner.plugin: status.reason for status in load_plugins(120.0).failed}
    assert "default dtype" in reasons["dtype"]
    assert "default device" in reasons["device"]
    assert "gradient mode" in reasons["mode"]
    assert "has no hook" in reasons["sound"]
